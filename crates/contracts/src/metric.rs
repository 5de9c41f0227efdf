//! The one table of metrics: what each is called, what it counts and in what unit, its labels, and its help text. They are
//! an interface: dashboards and alerts are written against them, and the services read some of each other's.
//!
//! Where a metric is counted is the business of the crate that counts it; `millrace-service` gives the exporter the help
//! texts. `docs/metrics.md` is made of this table.

/// What a metric is to Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// Only grows, from 0 at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets, with their sum and count.
    Histogram,
}

impl MetricKind {
    /// The word of the exposition format.
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
    /// What it is called.
    pub name: &'static str,
    /// What it is to Prometheus.
    pub kind: MetricKind,
    /// What it counts or is measured in.
    pub unit: &'static str,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it means.
    pub help: &'static str,
}

/// The upper bounds of the buckets of histograms, all of which are of seconds: from a step on a fast disk to the restore of
/// a large state.
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
        "Events by how they were answered: accepted (204 or 202), the code of a refusal, or outcome-unknown, also when the \
         client was gone before the outcome; a batch refused as a whole counts once";
    COMMAND_EARLY = Counter "millrace_command_answered_early_total", "events", ["outcome"],
        "Events answered 202 before the log's report, by that report: stored, lost or unknown";
    COMMAND_EARLY_PENDING = Gauge "millrace_command_answered_early_pending", "events", [],
        "Events answered 202 whose report of the log is still to come";

    APPENDS = Counter "millrace_append_records_total", "records", ["outcome"],
        "Records appended, by the log's report: acknowledged, refused (not in the log) or unknown";
    APPEND_WAITING_RECORDS = Gauge "millrace_append_waiting_records", "records", [],
        "Records in the queue to the log; on Kafka until a broker has answered, told once a second";
    APPEND_WAITING_BYTES = Gauge "millrace_append_waiting_bytes", "bytes", [],
        "Bytes in the queue to the log; on Kafka until a broker has answered, told once a second";

    STEPS = Counter "millrace_stage_steps_total", "steps", ["role"],
        "Steps of a stage that were seen to commit";
    ABORTS = Counter "millrace_stage_aborts_total", "steps", ["role", "reason"],
        "Steps of a stage that did not commit and are done again, by what failed: records, offsets (most often the group \
         moved on), commit or write; or lost: the producer cannot go on, and the log decides whether the step counts";
    STEP_SECONDS = Histogram "millrace_stage_step_seconds", "seconds", ["role"],
        "Time of a committed step, from the application of its first record until it was durable";
    COMMIT_SECONDS = Histogram "millrace_stage_commit_seconds", "seconds", ["role"],
        "The part of a committed step that is its transaction; embedded: its write and sync";
    LAG = Gauge "millrace_lag_records", "offsets", ["role", "partition"],
        "Offsets between what a stage or sink has made durable and the last stable offset of the partition, told once a \
         second; 0 for a partition that this process does not hold (any more)";
    WORKER_RESTARTS = Counter "millrace_worker_restarts_total", "restarts", ["role"],
        "Workers of a stage or sink that failed and start anew from what is durable";
    RESTORE_DONE = Gauge "millrace_restore_offsets_done", "offsets", ["role"],
        "Offsets read back by the restores under way; 0 when there is none";
    RESTORE_TOTAL = Gauge "millrace_restore_offsets", "offsets", ["role"],
        "Offsets to be read back in all by the restores under way; 0 when there is none";
    RESTORE_SECONDS = Histogram "millrace_restore_seconds", "seconds", ["role"],
        "Time of a restore that was completed";

    COUNTED = Counter "millrace_processor_counted_total", "events", [],
        "Events counted. This and the other counters of the processor are told of steps that were seen to commit: counted, \
         duplicates and parked together are the records of analytics.events that were taken in";
    LATE = Counter "millrace_processor_late_total", "events", [],
        "Events counted in an hour that was over: by log time, for more than an hour";
    DUPLICATES = Counter "millrace_processor_duplicates_total", "events", [],
        "Events not counted because their id was seen before in the window";
    CONFLICTS = Counter "millrace_processor_id_conflicts_total", "events", [],
        "Duplicates whose time or kind differs from the first event's, which holds";
    PARKED = Counter "millrace_processor_parked_total", "records", ["reason"],
        "Records of analytics.events put aside into analytics.late, by reason";
    SKETCHED = Counter "millrace_processor_sketched_hours_total", "hours", ["cause"],
        "Hours whose users became a sketch, by cause: bound (too many users) or age (not written for too long)";
    SNAPSHOTS = Counter "millrace_processor_snapshots_total", "snapshots", [],
        "Snapshots of an hour's users written to analytics.state";
    SPILLED = Counter "millrace_processor_spilled_bytes_total", "bytes", [],
        "Bytes written to scratch files to save memory";
    USERS_MEMORY = Gauge "millrace_processor_users_memory_bytes", "bytes", [],
        "Memory of the users of all hours; bounded by processor.memory";
    HOURS = Gauge "millrace_processor_hours", "hours", ["form"],
        "Hours held, once for each partition, by the form of their users: memory, disk or sketch";
    EVENT_IDS = Gauge "millrace_processor_event_ids", "ids", [],
        "Occurrences of event ids held";

    PROJECTED = Counter "millrace_materializer_projected_total", "records", ["store"],
        "Records of analytics.hourly that a store was seen to take";
    SKIPPED = Counter "millrace_materializer_skipped_total", "records", ["store"],
        "Records of analytics.hourly that are no hourly counts, left aside";
    REBUILDS = Counter "millrace_materializer_rebuilds_total", "partitions", ["store"],
        "Partitions of a store that were begun from the start";
    STORE_LOST = Counter "millrace_materializer_lost_total", "losses", ["store"],
        "Times a store was found to have lost what had been written to it";
    REFILLS = Counter "millrace_materializer_refills_total", "hours", ["outcome"],
        "Older hours that were to be put into Redis: filled, early (the archive stayed behind), incomplete (a store is being \
         built) or failed";

    READS = Counter "millrace_query_reads_total", "reads", ["tier"],
        "Reads of an hour answered with numbers, by the tier that answered";
    STALE_READS = Counter "millrace_query_stale_reads_total", "reads", [],
        "Reads of an hour answered with numbers that are marked stale";
    UNANSWERED = Counter "millrace_query_unanswered_total", "reads", ["code"],
        "Reads answered with 503, by code";
    REFRESHES = Counter "millrace_query_refreshes_total", "reads", [],
        "Reads of the current hour from its store";
    STORE_ERRORS = Counter "millrace_query_store_errors_total", "reads", ["store"],
        "Reads of a read model that failed or were not answered in time";
    BREAKER_OPEN = Gauge "millrace_query_breaker_open", "bool", ["store"],
        "1 while a read model is left alone because it keeps failing";
    REFILLS_ASKED = Counter "millrace_query_refills_asked_total", "hours", [],
        "Requests that an older hour be put into Redis again";
    RANGE_HOURS = Counter "millrace_query_range_hours_total", "hours", [],
        "Hours answered in ranges";
    LIVE_STREAMS = Gauge "millrace_query_live_streams", "streams", [],
        "Live streams that are open";
    LIVE_EVENTS = Counter "millrace_query_live_events_total", "events", [],
        "Events of the live stream, each made once for all who listen";

    HTTP_CONNECTIONS = Gauge "millrace_http_connections", "connections", [],
        "Open connections of all listeners";
    HTTP_REFUSED = Counter "millrace_http_connections_refused_total", "connections", ["reason"],
        "Connections that were not served: total or per-ip (too many), or accept (the system gave none)";
    HTTP_CUT = Counter "millrace_http_connections_cut_total", "connections", ["reason"],
        "Connections that were cut: head (too slow), idle, or write (the client does not read)";
    HTTP_PROBLEMS = Counter "millrace_http_problems_total", "responses", ["code"],
        "Problem documents answered, by code, also to requests that no service saw";
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
            assert!(ALL[..index].iter().all(|other| other.name != *name), "{name} stands there twice");
        }
    }
}
