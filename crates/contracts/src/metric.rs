//! The table of metrics: name, kind, unit, labels and help text of each.
//!
//! Metrics are an interface: dashboards and alerts depend on them, and services read some of each other's. The crate that
//! counts a metric imports it from here; `millrace-service` registers the help texts with the exporter; a test generates
//! `docs/metrics.md` from this table.

/// The type of a metric in Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only increases, from 0 at the start of the process.
    Counter,
    /// Increases and decreases.
    Gauge,
    /// Observations in buckets, with their sum and count.
    Histogram,
}

impl MetricKind {
    /// The type's name in the exposition format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// The full name, with the prefix `millrace_`.
    pub name: &'static str,
    /// The type.
    pub kind: MetricKind,
    /// The unit, or what it counts.
    pub unit: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// The help text.
    pub help: &'static str,
}

/// Upper bounds of the histograms' buckets, in seconds: from a step on a fast disk to the restore of a large state. Every
/// histogram measures seconds.
pub const SECONDS_BUCKETS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

macro_rules! metrics {
    ($($id:ident = $kind:ident $name:literal, $unit:literal, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric = Metric {
                name: $name,
                kind: MetricKind::$kind,
                unit: $unit,
                labels: &[$($label),*],
                help: $help,
            };
        )*

        /// Every metric.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

metrics! {
    COMMAND_EVENTS = Counter "millrace_command_events_total", "events", ["outcome"],
        "Events by the outcome in the response: accepted (204 or 202), the code of a refusal, or outcome-unknown; also \
         counted if the client disconnected before. A batch that is refused as a whole counts once";
    COMMAND_ASYNC = Counter "millrace_command_async_events_total", "events", ["outcome"],
        "Events that were accepted with 202 before their acknowledgment by the log, by the acknowledgment that \
         followed: stored, lost or unknown";
    COMMAND_ASYNC_PENDING = Gauge "millrace_command_async_pending", "events", [],
        "Events that were accepted with 202 and whose acknowledgment by the log is pending";

    TCP_FRAMES = Counter "millrace_tcp_frames_total", "frames", ["outcome"],
        "Frames of TCP intake by how they were answered: acked, the word of a refusal, or unknown (the connection is closed \
         without an answer; the client sends again)";
    TCP_CONNECTIONS = Gauge "millrace_tcp_connections", "connections", [],
        "Open connections of TCP intake";
    TCP_REFUSED = Counter "millrace_tcp_refused_total", "connections", ["reason"],
        "Connections of TCP intake that were not served: total or per-ip (too many), accept (an error of the system), or proxy \
         (no PROXY header of a trusted proxy)";
    TCP_CLOSED = Counter "millrace_tcp_closed_total", "connections", ["reason"],
        "Connections of TCP intake that the server ended: bad-frame, unauthenticated, unavailable (the issuer's keys are being \
         read), forbidden, rate-limited (no valid token, too often), idle, partial, shutting-down, write-timeout (replies were \
         not taken), evicted (for new ones), or reset (by the client)";

    INTAKE_MESSAGES = Counter "millrace_intake_messages_total", "messages", ["outcome"],
        "Messages of TCP intake by the stage's decision: journaled, duplicate, behind (a frame before it is missing; the \
         client sends it again) or undecodable";
    INTAKE_SEQ_REUSED = Counter "millrace_intake_seq_reused_total", "messages", [],
        "Messages journaled although their client had used the number for other bytes";
    INTAKE_GAPS = Counter "millrace_intake_gaps_total", "gaps", [],
        "Messages whose number is more than one above their client's highest";
    INTAKE_REMEMBERED = Gauge "millrace_intake_remembered", "entries", ["partition", "what"],
        "What the intake stage remembers to find duplicates: clients, arrivals and series of frames";

    JOURNAL_RECORDS = Counter "millrace_journal_records_total", "records", [],
        "Records written to the journal of this process";
    JOURNAL_BYTES = Counter "millrace_journal_payload_bytes_total", "bytes", [],
        "Payload bytes written to the journal of this process";
    JOURNAL_FOREIGN = Counter "millrace_journal_foreign_total", "records", [],
        "Records of intake.journal that are none of the product, and were left out of the journal";

    APPENDS = Counter "millrace_append_records_total", "records", ["outcome"],
        "Records appended to the log, by outcome: acknowledged, refused (not in the log) or unknown";
    APPEND_QUEUE_RECORDS = Gauge "millrace_append_queue_records", "records", [],
        "Records in the append queue, on Kafka until the broker responds; sampled once a second";
    APPEND_QUEUE_BYTES = Gauge "millrace_append_queue_bytes", "bytes", [],
        "Bytes in the append queue, on Kafka until the broker responds; sampled once a second";

    STEPS = Counter "millrace_stage_steps_total", "steps", ["role"],
        "Steps of a stage that committed";
    ABORTS = Counter "millrace_stage_aborts_total", "steps", ["role", "reason"],
        "Steps of a stage that did not commit and are repeated, by the part that failed: records, offsets (most often \
         because of a rebalance), commit or write; reason lost: the producer cannot continue, and the log decides \
         whether the step counts";
    REPEATS = Counter "millrace_stage_repeats_total", "records", ["role"],
        "Records of the input that their producer wrote twice (it lost the first acknowledgment, and the log took the \
         second for a new record): they count once";
    STEP_SECONDS = Histogram "millrace_stage_step_seconds", "seconds", ["role"],
        "Duration of a committed step, from its first record until it is durable";
    COMMIT_SECONDS = Histogram "millrace_stage_commit_seconds", "seconds", ["role"],
        "Duration of the transaction of a committed step; embedded engine: of its write and sync";
    LAG = Gauge "millrace_lag_records", "offsets", ["role", "partition"],
        "Offsets between the durable position of a stage or sink and the last stable offset of the partition, sampled \
         once a second; 0 for a partition that is not assigned to this process";
    OPEN_RECORDS = Gauge "millrace_open_records", "offsets", ["role", "partition"],
        "Offsets between the last stable offset and the high watermark of the partition: in transactions that have not ended, \
         and behind them, where no reader gets past and the lag does not count; sampled once a second, 0 on the embedded engine";
    FAILED_PARTITION = Gauge "millrace_stage_partition_failed", "bool", ["role", "partition"],
        "1 while this process does not process an assigned partition, since its restore or a step failed; the others go on";
    WORKER_RESTARTS = Counter "millrace_worker_restarts_total", "restarts", ["role"],
        "Restarts of stage and sink workers after a failure";
    RESTORE_DONE = Gauge "millrace_restore_offsets_done", "offsets", ["role"],
        "Offsets that the running restores have read; 0 without a restore";
    RESTORE_TOTAL = Gauge "millrace_restore_offsets", "offsets", ["role"],
        "Offsets that the running restores read in total; 0 without a restore";
    RESTORE_SECONDS = Histogram "millrace_restore_seconds", "seconds", ["role"],
        "Duration of a completed restore";

    COUNTED = Counter "millrace_processor_counted_total", "events", [],
        "Events counted. The counters of the processor cover committed steps only; counted, duplicates, \
         quarantined and the repeats of role processor add up to the records consumed from analytics.events";
    LATE = Counter "millrace_processor_late_total", "events", [],
        "Events counted more than one hour, in log time, after the end of their hour";
    DUPLICATES = Counter "millrace_processor_duplicates_total", "events", [],
        "Events dropped as duplicates, by event id";
    CONFLICTS = Counter "millrace_processor_id_conflicts_total", "events", [],
        "Duplicates whose timestamp or kind differs from the first event with the id; the first event counts";
    QUARANTINED = Counter "millrace_processor_quarantined_total", "records", ["reason"],
        "Records of analytics.events that were not counted but copied to analytics.late, by reason";
    SKETCH_SWITCHES = Counter "millrace_processor_sketch_switches_total", "hours", ["cause"],
        "Switches of an hour, in one partition, from an exact set of users to a sketch, by cause: bound (too many \
         users) or age (no event for too long)";
    SNAPSHOTS = Counter "millrace_processor_snapshots_total", "snapshots", [],
        "Snapshots of an hour's users written to analytics.state";
    SPILLED = Counter "millrace_processor_spilled_bytes_total", "bytes", [],
        "Bytes written to scratch files to save memory";
    USERS_MEMORY = Gauge "millrace_processor_users_memory_bytes", "bytes", [],
        "Memory that the users of all hours occupy; bounded by `processor.max_memory`";
    HOURS = Gauge "millrace_processor_hours", "hours", ["form"],
        "Hours in the state, once per partition, by the form of their users: memory, disk or sketch";
    EVENT_IDS = Gauge "millrace_processor_event_ids", "ids", [],
        "Occurrences of event ids in the deduplication window";

    PROJECTED = Counter "millrace_materializer_projected_total", "records", ["store"],
        "Records of analytics.hourly that a store confirmed";
    SKIPPED = Counter "millrace_materializer_skipped_total", "records", ["store"],
        "Records of analytics.hourly that are not valid hourly counts and were skipped";
    REBUILDS = Counter "millrace_materializer_rebuilds_total", "partitions", ["store"],
        "Rebuilds of a partition of a store from the start of the log";
    STORE_LOSSES = Counter "millrace_materializer_store_losses_total", "losses", ["store"],
        "Times a store lost data that it had confirmed";
    REFILLS = Counter "millrace_materializer_refills_total", "hours", ["outcome"],
        "Refills of an older hour in Redis, by outcome: filled, archive-behind (the archive lags behind Redis), \
         rebuilding (a store is being rebuilt) or failed";

    INDEXED_MESSAGES = Counter "millrace_materializer_indexed_messages_total", "messages", [],
        "Messages that the index of messages confirmed";

    READS = Counter "millrace_query_reads_total", "reads", ["tier"],
        "Reads of an hour that returned counts, by the tier that served them";
    STALE_READS = Counter "millrace_query_stale_reads_total", "reads", [],
        "Reads of an hour that returned counts marked as stale";
    UNAVAILABLE_READS = Counter "millrace_query_unavailable_reads_total", "reads", ["code"],
        "Reads that returned 503, by code";
    REFRESHES = Counter "millrace_query_refreshes_total", "reads", [],
        "Reads of the current hour from its store";
    STORE_ERRORS = Counter "millrace_query_store_errors_total", "reads", ["store"],
        "Reads of a store that failed or timed out";
    EVENTS_WAITING = Gauge "millrace_query_events_waiting", "events", ["store"],
        "Events in the log that the store has not counted, as the reader of the log computes it: also while no processor or \
         materializer runs";
    BREAKER_OPEN = Gauge "millrace_query_breaker_open", "bool", ["store"],
        "1 while the store's circuit breaker is open";
    REFILL_REQUESTS = Counter "millrace_query_refill_requests_total", "hours", [],
        "Requests to fill an older hour into Redis";
    RANGE_HOURS = Counter "millrace_query_range_hours_total", "hours", [],
        "Hours returned in ranges";
    LIVE_STREAMS = Gauge "millrace_query_live_streams", "streams", [],
        "Open live streams";
    LIVE_EVENTS = Counter "millrace_query_live_events_total", "events", [],
        "Events of the live stream; one event for all subscribers counts once";

    PUSH_ATTEMPTS = Counter "millrace_push_attempts_total", "requests", ["outcome"],
        "Requests to endpoints of push subscriptions, by outcome: success, http-status, redirect, timeout, connect, dns, \
         tls or blocked-target";
    PUSH_SECONDS = Histogram "millrace_push_seconds", "seconds", [],
        "Time from the begin of a request to an endpoint to the head of its response";
    PUSH_IN_FLIGHT = Gauge "millrace_push_in_flight", "requests", [],
        "Requests to endpoints under way";
    DROPPED_EVENTS = Counter "millrace_delivery_dropped_events_total", "events", [],
        "Events about subscriptions that were dropped, because 10,000 of their partition waited to be published";
    BACKLOG_READS = Counter "millrace_delivery_backlog_reads_total", "reads", ["source"],
        "Reads of chunks of messages that are no longer in memory, by where they were looked for: index, or scan (the index does not \
         reach that far, or does not answer: the partition is read over)";
    EXPIRED_MESSAGES = Counter "millrace_delivery_expired_messages_total", "messages", [],
        "Messages that the index names to a subscription behind memory and that the log had dropped; a scan counts none";

    COMPONENT_READY = Gauge "millrace_component_ready", "bool", ["component"],
        "1 while a component of the process is ready; the reason of a 0 is in /readyz of the admin listener";
    AGREED_SETTING = Gauge "millrace_agreed_setting", "ms", ["key"],
        "Value of a setting that all processes must agree on, by key: `analytics.future_tolerance`, and \
         `analytics.accept_from` since the epoch";

    AUTH_DENIED = Counter "millrace_auth_denied_total", "requests", ["reason"],
        "Requests and sessions refused by authentication, by reason: missing (no credential), invalid (unknown, revoked or \
         expired), unavailable (the keys of the token's issuer have not been read yet, or are being read again), scope, \
         cross-site (a browser sent it for a page of another site), host (a loopback listener under another name) or \
         rate-limited (missing or invalid, beyond auth.max_failure_rate_per_ip)";
    AUTH_RATE_LIMITED = Counter "millrace_auth_rate_limited_total", "requests", ["limit"],
        "Requests with 429 beyond a rate of their principal: requests, events or bytes";
    AUTH_KEYS = Gauge "millrace_auth_keys", "keys", [],
        "API keys that are valid in this process";
    AUTH_RELOADS = Counter "millrace_auth_reloads_total", "reloads", [],
        "Changes of the keys file that this process has read";
    AUTH_STALE = Gauge "millrace_auth_stale", "bool", [],
        "1 while the keys file cannot be read and the last keys that could stay valid";

    AUTH_TOKENS_REFUSED = Counter "millrace_auth_tokens_refused_total", "requests", ["reason"],
        "JSON Web Tokens that are not valid, by reason: no-keys (the issuer's keys have not been read yet), too-large, \
         malformed, unknown-key, algorithm (another than the key is for), signature, expired, not-yet-valid, issuer, audience \
         or claims (one is missing or of no use)";
    AUTH_JWKS_KEYS = Gauge "millrace_auth_jwks_keys", "keys", [],
        "The issuer's public keys that tokens are verified with";
    AUTH_JWKS_STALE = Gauge "millrace_auth_jwks_stale", "bool", [],
        "1 while the issuer's keys cannot be read and the last ones that could stay in use";

    AUDIT_RECORDS = Counter "millrace_audit_records_total", "records", ["outcome"],
        "Records of the audit log, by outcome: written, lost (the log did not take it, or was not open yet) or sampled (left \
         out: a refusal beyond the rate that is recorded)";

    TLS_REFUSED = Counter "millrace_tls_refused_total", "connections", ["reason"],
        "Connections without a TLS handshake, by reason: timeout or failed";
    TLS_STALE = Gauge "millrace_tls_stale", "bool", [],
        "1 while the files of the certificate cannot be read and the last ones that could stay in use";

    HTTP_CONNECTIONS = Gauge "millrace_http_connections", "connections", [],
        "Open connections of all listeners";
    HTTP_REFUSED = Counter "millrace_http_connections_refused_total", "connections", ["reason"],
        "Connections refused, by reason: total or per-ip (a connection limit), accept (the system call failed), or proxy (no \
         PROXY header of a trusted proxy)";
    HTTP_TIMEOUTS = Counter "millrace_http_connection_timeouts_total", "connections", ["reason"],
        "Connections closed by a timeout: head (the request head took too long), idle, or write (the client does not \
         read); and streams of HTTP/2: stream (the client does not take the answer)";
    HTTP_BODY_BYTES = Gauge "millrace_http_body_bytes", "bytes", [],
        "Memory that request bodies hold until their requests are answered";
    HTTP_PROBLEMS = Counter "millrace_http_problems_total", "responses", ["code"],
        "Responses with a problem document, by code, including those to requests that reached no handler";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for (index, metric) in ALL.iter().enumerate() {
            let Metric { name, kind, unit, help, .. } = metric;
            assert!(
                name.starts_with("millrace_") && name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()),
                "{name}"
            );
            assert_eq!(name.ends_with("_total"), *kind == MetricKind::Counter, "{name}");
            assert_eq!(name.ends_with("_seconds"), *unit == "seconds", "{name}");
            assert_eq!(name.trim_end_matches("_total").ends_with("_bytes"), *unit == "bytes", "{name}");
            assert!(*kind != MetricKind::Histogram || *unit == "seconds", "{name}: the buckets are of seconds");
            assert!(!help.is_empty() && !help.ends_with('.'), "{name}");
            assert!(ALL[..index].iter().all(|other| other.name != *name), "{name} is in the table twice");
        }
    }
}
