//! Settings of the Kafka engine, and the librdkafka properties made from them.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use millrace_base::{Bounds, Size, Span, Violation};
use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

/// Largest record in bytes, on both sides: a payload of 1 MiB fits with its envelope.
pub(crate) const MAX_RECORD_BYTES: usize = 1_310_720;

/// `max.poll.interval.ms` unless set: far longer than the restore of anything that fits a process.
const MAX_POLL_INTERVAL_MS: u64 = 1_800_000;

/// `heartbeat.interval.ms` unless set. A member learns of a rebalance by its heartbeat, and a moving partition is not
/// read until every member has.
const HEARTBEAT_MS: u64 = 500;

/// Which brokers must have an appended record before it is acknowledged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AppendAcks {
    /// All in-sync replicas. The producer's retries make no duplicates.
    #[default]
    All,
    /// The partition's leader only: a record can be lost with it, or be duplicated.
    Leader,
}

/// Further properties of librdkafka. `Debug` hides their values: there are passwords among them.
#[derive(Clone, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(transparent)]
pub struct Properties(pub BTreeMap<String, String>);

impl fmt::Debug for Properties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Settings of the Kafka engine. `millrace/default.toml` documents each.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// Bootstrap brokers, `host:port`, separated by commas.
    pub brokers: String,
    /// Partitions of every topic; an existing topic with another number is refused.
    pub partitions: u32,
    /// Replicas of created topics.
    pub replication_factor: i32,
    /// `min.insync.replicas` of created topics.
    pub min_insync_replicas: i32,
    /// Most records in the producer's queue; further appends are refused.
    pub max_queue_records: u32,
    /// Most bytes in the producer's queue, in whole KiB; further appends are refused.
    pub max_queue_bytes: Size,
    /// Longest time a record waits for others to fill its batch.
    pub linger: Span,
    /// Without a delivery report for this long the outcome of an append is unknown.
    pub message_timeout: Span,
    /// The open transaction of a dead worker blocks readers for this long.
    pub transaction_timeout: Span,
    /// Least time from the end of a step to the end of collecting the next, while no record waits.
    pub step_interval: Span,
    /// A worker without a heartbeat for this long loses its partitions.
    pub session_timeout: Span,
    /// Any other librdkafka property, for every client.
    pub properties: Properties,
    /// The meaning of an acknowledged append. Not a setting of this section: the appending service decides.
    #[serde(skip)]
    pub append_acks: AppendAcks,
    /// Whether group members are static (KIP-345), named by instance and worker. A static member retains its partitions
    /// over a restart, until its session expires; a dynamic one leaves the group, and others get them at once. Not a
    /// setting of this section: members are static if the instance has a configured name.
    #[serde(skip)]
    pub static_members: bool,
}

/// Properties on which the guarantees rest, with the only allowed value, or none if Millrace sets them itself.
const GUARDED: [(&str, Option<&str>); 27] = [
    ("delivery.report.only.error", Some("false")),
    ("acks", Some("all")),
    ("auto.offset.reset", Some("error")),
    ("bootstrap.servers", None),
    ("delivery.timeout.ms", None),
    ("linger.ms", None),
    ("message.max.bytes", None),
    ("queue.buffering.max.kbytes", None),
    ("queue.buffering.max.messages", None),
    ("queue.buffering.max.ms", None),
    ("session.timeout.ms", None),
    ("statistics.interval.ms", None),
    ("enable.auto.commit", Some("false")),
    ("enable.auto.offset.store", Some("false")),
    ("enable.gapless.guarantee", Some("false")),
    ("enable.idempotence", Some("true")),
    ("enable.partition.eof", None),
    ("group.id", None),
    ("group.instance.id", None),
    ("group.protocol", Some("classic")),
    ("isolation.level", Some("read_committed")),
    ("message.timeout.ms", None),
    ("metadata.broker.list", None),
    ("partition.assignment.strategy", Some("cooperative-sticky")),
    ("request.required.acks", Some("all")),
    ("transaction.timeout.ms", None),
    ("transactional.id", None),
];

impl KafkaConfig {
    /// Every setting outside its bounds, and every property that Millrace does not pass on.
    pub fn validate(&self) -> Vec<Violation> {
        let in_sync = 1..=self.replication_factor.max(1);
        let mut bounds = Bounds::new();
        bounds
            .check(!self.brokers.trim().is_empty(), "brokers", "host:port, several separated by commas")
            .range("partitions", &self.partitions, &(1..=1024))
            .range("replication_factor", &self.replication_factor, &(1..=15))
            .check(in_sync.contains(&self.min_insync_replicas), "min_insync_replicas", "1..=replication_factor")
            .range("max_queue_records", &self.max_queue_records, &(1..=10_000_000))
            .range("max_queue_bytes", &self.max_queue_bytes, &(Size::from_kib(1_280)..=Size::from_kib(2_097_151)))
            .range("linger", &self.linger, &(Span::from_secs(0)..=Span::from_secs(1)))
            .range("message_timeout", &self.message_timeout, &(Span::from_secs(1)..=Span::from_secs(60)))
            .range("transaction_timeout", &self.transaction_timeout, &(Span::from_secs(1)..=Span::from_secs(900)))
            .range("step_interval", &self.step_interval, &(Span::from_millis(1)..=Span::from_millis(100)))
            .range("session_timeout", &self.session_timeout, &(Span::from_secs(6)..=Span::from_secs(300)));
        for (key, value) in &self.properties.0 {
            let Some((_, allowed)) = GUARDED.iter().find(|(guarded, _)| guarded == key) else { continue };
            let key = format!("properties.{key}");
            match allowed {
                None => bounds.check(false, &key, "absent: Millrace sets this property itself"),
                Some(only) => {
                    let allowed = format_args!("\"{only}\" or absent: the guarantees depend on this property");
                    bounds.check(only == value, &key, allowed)
                }
            };
        }
        bounds.into_violations()
    }

    fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        for (key, value) in &self.properties.0 {
            client.set(key, value);
        }
        client.set("bootstrap.servers", &self.brokers).set("message.max.bytes", MAX_RECORD_BYTES.to_string());
        default_to(&mut client, "client.id", "millrace");
        default_to(&mut client, "socket.nagle.disable", "true");
        default_to(&mut client, "socket.keepalive.enable", "true");
        default_to(&mut client, "reconnect.backoff.max.ms", "1000");
        client.set_log_level(RDKafkaLogLevel::Warning);
        client
    }

    /// Appends: the delivery report decides the response, so it must arrive while the client still waits.
    pub(super) fn appender(&self) -> ClientConfig {
        let mut client = self.client();
        match self.append_acks {
            AppendAcks::All => client.set("enable.idempotence", "true").set("acks", "all"),
            AppendAcks::Leader => client.set("enable.idempotence", "false").set("acks", "1"),
        };
        client.set("linger.ms", self.linger.as_millis().to_string());
        default_to(&mut client, "batch.num.messages", "10000");
        default_to(&mut client, "batch.size", "1000000");
        client.set("queue.buffering.max.messages", self.max_queue_records.to_string());
        client.set("queue.buffering.max.kbytes", (self.max_queue_bytes.0 / 1_024).to_string());
        client.set("message.timeout.ms", self.message_timeout.as_millis().to_string());
        // For the metric of appends in flight.
        client.set("statistics.interval.ms", "1000");
        default_to(&mut client, "compression.type", "lz4");
        stay_connected(&mut client);
        client
    }

    /// A stage's outputs and changes.
    pub(super) fn transactional(&self, id: &str) -> ClientConfig {
        let mut client = self.client();
        client.set("transactional.id", id).set("enable.idempotence", "true").set("acks", "all");
        client.set("transaction.timeout.ms", self.transaction_timeout.as_millis().to_string());
        // Must expire before the transaction does.
        client.set("message.timeout.ms", (self.transaction_timeout.as_millis() / 10 * 9).to_string());
        client.set("linger.ms", "0");
        default_to(&mut client, "compression.type", "lz4");
        stay_connected(&mut client);
        client
    }

    fn consumer(&self) -> ClientConfig {
        let mut client = self.client();
        client.set("isolation.level", "read_committed").set("auto.offset.reset", "error");
        client.set("enable.auto.commit", "false").set("enable.auto.offset.store", "false");
        // A full local queue stalls the fetcher for 1 s by default (librdkafka#2879).
        default_to(&mut client, "fetch.queue.backoff.ms", "5");
        default_to(&mut client, "fetch.wait.max.ms", "100");
        default_to(&mut client, "fetch.error.backoff.ms", "100");
        default_to(&mut client, "queued.max.messages.kbytes", "65536");
        client
    }

    /// A member of a consumer group: a worker of an instance.
    pub(super) fn member(&self, group: &str, instance: &str, worker: usize) -> ClientConfig {
        let mut client = self.consumer();
        client.set("group.id", group);
        if self.static_members {
            client.set("group.instance.id", format!("{instance}-{worker}"));
        }
        client.set("partition.assignment.strategy", "cooperative-sticky").set("group.protocol", "classic");
        client.set("session.timeout.ms", self.session_timeout.as_millis().to_string());
        default_to(&mut client, "heartbeat.interval.ms", &HEARTBEAT_MS.to_string());
        // Per partition. The next fetch starts once these are consumed, not for every record that arrives during a
        // commit: that costs brokers more than the records do. A fetch returns all that is available, so a backlog is
        // read as fast.
        default_to(&mut client, "queued.min.messages", "10");
        // Also the timeout of a restore, see `max_poll_interval`. The session detects a process that hangs.
        default_to(&mut client, "max.poll.interval.ms", &MAX_POLL_INTERVAL_MS.to_string());
        client.set("enable.partition.eof", "true");
        // The last stable offset, for the lag.
        client.set("statistics.interval.ms", "1000");
        client
    }

    /// The timeout of a restore: tombstones must outlast it.
    pub(super) fn max_poll_interval(&self) -> Duration {
        let set = self.properties.0.get("max.poll.interval.ms").and_then(|set| set.parse().ok());
        Duration::from_millis(set.unwrap_or(MAX_POLL_INTERVAL_MS))
    }

    /// A reader outside any group. librdkafka requires a group's name all the same.
    pub(super) fn reader(&self, group: &str) -> ClientConfig {
        let mut client = self.consumer();
        client.set("group.id", group).set("enable.partition.eof", "true");
        client
    }
}

/// Connects to all brokers, not only to those with requests: otherwise a request for a dead coordinator waits, past
/// every timeout, until some broker's state changes, which on an idle connection is never.
fn stay_connected(client: &mut ClientConfig) {
    default_to(client, "enable.sparse.connections", "false");
}

fn default_to(client: &mut ClientConfig, key: &str, value: &str) {
    if client.get(key).is_none() {
        client.set(key, value);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::consumer::consumer;
    use super::*;

    pub(crate) fn config(brokers: &str) -> KafkaConfig {
        KafkaConfig {
            brokers: brokers.into(),
            partitions: 12,
            replication_factor: 1,
            min_insync_replicas: 1,
            max_queue_records: 500_000,
            max_queue_bytes: Size::from_mib(256),
            linger: Span::from_millis(2),
            message_timeout: Span::from_secs(5),
            transaction_timeout: Span::from_secs(10),
            step_interval: Span::from_millis(15),
            session_timeout: Span::from_secs(10),
            properties: Properties::default(),
            append_acks: AppendAcks::All,
            static_members: false,
        }
    }

    #[test]
    fn members_are_static_if_configured() {
        let mut config = config("localhost:9092");
        assert_eq!(config.member("processor", "host-9083", 0).get("group.instance.id"), None);
        config.static_members = true;
        assert_eq!(config.member("processor", "blue", 1).get("group.instance.id"), Some("blue-1"));
    }

    #[test]
    fn guarded_properties_are_refused_by_name() {
        let mut config = config("localhost:9092");
        assert_eq!(config.validate(), []);
        for (key, _) in GUARDED {
            config.properties.0 = BTreeMap::from([(key.to_owned(), "latest".to_owned())]);
            let problems = config.validate();
            assert_eq!(problems.len(), 1, "{key}");
            assert_eq!(problems[0].key, format!("properties.{key}"));
        }
        config.properties.0 =
            BTreeMap::from([("isolation.level".into(), "read_committed".into()), ("batch.size".into(), "9000".into())]);
        assert_eq!(config.validate(), []);
        assert_eq!(config.appender().get("batch.size"), Some("9000"), "other properties pass through");
    }

    #[test]
    fn values_of_properties_are_not_in_debug_output() {
        let mut config = config("localhost:9092");
        config.properties.0.insert("sasl.password".into(), "canary".into());
        let text = format!("{config:?}");
        assert!(text.contains("sasl.password") && !text.contains("canary"), "{text}");
    }

    #[test]
    fn a_refused_property_is_reported_without_its_value() {
        let mut config = config("localhost:9092");
        for key in ["sasl.pasword", "security.protocol"] {
            config.properties.0 = BTreeMap::from([(key.to_owned(), "canary".to_owned())]);
            let error = consumer(&config.reader("group")).err().unwrap();
            let text = format!("{error} {error:?}");
            assert!(text.contains(key) && !text.contains("canary"), "{text}");
        }
    }

    #[test]
    fn settings_have_bounds() {
        let mut config = config(" ");
        (config.partitions, config.min_insync_replicas, config.message_timeout) = (0, 2, Span::from_millis(10));
        let keys: Vec<String> = config.validate().into_iter().map(|violation| violation.key).collect();
        assert_eq!(keys, ["brokers", "partitions", "min_insync_replicas", "message_timeout"]);
    }
}
