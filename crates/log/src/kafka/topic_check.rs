//! Checks the settings of existing topics: someone else may have created or altered them.

use std::collections::HashMap;
use std::time::Duration;

use millrace_contracts::{Cleanup, Topic};
use rdkafka::admin::{ConfigResource, ResourceSpecifier};
use rdkafka::error::RDKafkaErrorCode;

use super::admin::{LOG_APPEND_TIME, TIMESTAMP_TYPE, options};
use super::config::MAX_RECORD_BYTES;
use super::{KafkaLog, unavailable};
use crate::LogError;

/// Above this minimum lag of compaction a restore reads far more than the state.
const LONG_COMPACTION_LAG: Duration = Duration::from_hours(24);

/// A setting of a topic that is not as Millrace needs it.
struct Deviation {
    /// Whether a guarantee does not hold with it.
    breaks: bool,
    setting: &'static str,
    found: String,
    needed: String,
    consequence: &'static str,
}

impl Deviation {
    fn text(&self, topic: &str) -> String {
        let Self { setting, found, needed, consequence, .. } = self;
        format!(
            "topic {topic} has {setting}={found}: {consequence}. Set it with Kafka's tool: kafka-configs --alter \
             --entity-type topics --entity-name {topic} --add-config {setting}={needed}"
        )
    }
}

/// What the settings of a topic must be compared with.
#[derive(Clone, Copy)]
struct Needs {
    min_insync_replicas: i64,
    replicas: i64,
    /// The longest restore.
    restore: Duration,
}

impl KafkaLog {
    /// Refuses existing topics with settings that break a guarantee, all of them by name; returns the settings that only
    /// need attention.
    pub(crate) async fn check_topics(&self) -> Result<Vec<String>, LogError> {
        let names: Vec<&str> = self.0.topics.iter().map(|declared| declared.full_name.as_str()).collect();
        let topics: Vec<ResourceSpecifier<'_>> = names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let described = self.admin()?.describe_configs(&topics, &options()).await;
        let described = described.map_err(unavailable("topic settings"))?;
        let config = &self.0.config;
        let needs = Needs {
            min_insync_replicas: config.min_insync_replicas.into(),
            replicas: config.replication_factor.into(),
            restore: config.max_poll_interval(),
        };
        let replicas = self.replicas().await?;
        let (mut broken, mut warnings) = (Vec::new(), Vec::new());
        for (declared, described) in self.0.topics.iter().zip(described) {
            let name = &declared.full_name;
            match described {
                Ok(settings) => {
                    for deviation in deviations(&declared.topic, needs, &values(&settings)) {
                        let text = deviation.text(name);
                        if deviation.breaks { broken.push(text) } else { warnings.push(text) }
                    }
                    if let Some(&found) = replicas.get(name).filter(|&&found| found < needs.replicas) {
                        let text = too_few_replicas(name, needs, found);
                        if found < needs.min_insync_replicas { broken.push(text) } else { warnings.push(text) }
                    }
                }
                Err(RDKafkaErrorCode::UnknownTopicOrPartition) => {}
                Err(code) => warnings.push(format!("the settings of topic {name} cannot be read: {code}")),
            }
        }
        if broken.is_empty() { Ok(warnings) } else { Err(LogError::refused(broken.join("; "))) }
    }
}

/// A topic with fewer replicas than configured, in some partition.
fn too_few_replicas(name: &str, needs: Needs, found: i64) -> String {
    let plural = if found == 1 { "" } else { "s" };
    let consequence = if found < needs.min_insync_replicas {
        "no record could be appended, since kafka.min_insync_replicas is larger"
    } else {
        "records are lost with fewer brokers than that"
    };
    format!(
        "topic {name} has {found} replica{plural}, and kafka.replication_factor is {}: {consequence}. Add replicas with Kafka's \
         tool: kafka-reassign-partitions --execute --reassignment-json-file FILE",
        needs.replicas
    )
}

fn values(settings: &ConfigResource) -> HashMap<&str, &str> {
    settings.entries.iter().filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?))).collect()
}

/// Every setting that is not as needed. One that the broker does not report is one that it does not have.
fn deviations(topic: &Topic, needs: Needs, found: &HashMap<&str, &str>) -> Vec<Deviation> {
    let mut deviations = Vec::new();
    let mut check = |breaks, setting, needed: String, consequence, fits: &dyn Fn(&str) -> bool| {
        if let Some(found) = found.get(setting).filter(|found| !fits(found)) {
            deviations.push(Deviation { breaks, setting, found: (*found).to_owned(), needed, consequence });
        }
    };
    let number = |text: &str| text.parse::<i64>().ok();
    let at_least = |least: i64| move |text: &str| number(text).is_none_or(|found| found >= least);
    let at_most = |most: i64| move |text: &str| number(text).is_none_or(|found| found <= most);
    let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    if topic.log_time {
        let consequence = "one producer with a wrong clock would move the log time";
        check(true, TIMESTAMP_TYPE, LOG_APPEND_TIME.into(), consequence, &|found| found == LOG_APPEND_TIME);
    }
    let largest = i64::try_from(MAX_RECORD_BYTES).unwrap_or(i64::MAX);
    let consequence = "the brokers would reject records that Millrace accepts";
    check(true, "max.message.bytes", largest.to_string(), consequence, &at_least(largest));
    let in_sync = needs.min_insync_replicas;
    let consequence = "an acknowledged record could be lost with fewer brokers than kafka.min_insync_replicas";
    check(true, "min.insync.replicas", in_sync.to_string(), consequence, &at_least(in_sync));
    let consequence = "a broker that lags behind may become leader, and acknowledged records would be lost";
    check(false, "unclean.leader.election.enable", "false".into(), consequence, &|found| found != "true");
    match topic.cleanup {
        Cleanup::Delete { retention_ms } => {
            let consequence = "compaction would delete records that were not read";
            check(true, "cleanup.policy", "delete".into(), consequence, &|found| found == "delete");
            let consequence = "records that were not read for that long are gone, and a stage that needs them stops";
            let retention = i64::try_from(retention_ms).unwrap_or(i64::MAX);
            let fits = |found: &str| number(found).is_none_or(|found| found < 0 || found >= retention);
            check(false, "retention.ms", retention.to_string(), consequence, &fits);
            let consequence = "records beyond that size are gone, read or not, and a stage that needs them stops";
            check(false, "retention.bytes", "-1".into(), consequence, &|found| number(found).is_none_or(|n| n < 0));
        }
        Cleanup::Compact => {
            let consequence = "state that is not rewritten in time would be deleted";
            check(true, "cleanup.policy", "compact".into(), consequence, &|found| found == "compact");
            let consequence = "a deleted key could come back, since a restore may read its tombstone too late";
            let restore = ms(needs.restore);
            check(true, "delete.retention.ms", "86400000".into(), consequence, &at_least(restore));
            let consequence = "a restore reads every change of that time";
            let lag = ms(LONG_COMPACTION_LAG);
            check(false, "min.compaction.lag.ms", "0".into(), consequence, &at_most(lag));
        }
    }
    deviations
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEEDS: Needs = Needs { min_insync_replicas: 2, replicas: 3, restore: Duration::from_mins(30) };

    fn found<'a>(changes: &[(&'a str, &'a str)], policy: &'a str) -> HashMap<&'a str, &'a str> {
        let mut found = HashMap::from([
            ("message.timestamp.type", "LogAppendTime"),
            ("max.message.bytes", "1310720"),
            ("min.insync.replicas", "2"),
            ("unclean.leader.election.enable", "false"),
            ("cleanup.policy", policy),
            ("retention.ms", "604800000"),
            ("retention.bytes", "-1"),
            ("delete.retention.ms", "86400000"),
            ("min.compaction.lag.ms", "0"),
        ]);
        found.extend(changes.iter().copied());
        found
    }

    #[test]
    fn each_deviation_is_found_and_states_its_command() {
        let table = [
            (Topic::EVENTS, "message.timestamp.type", "CreateTime", true),
            (Topic::EVENTS, "max.message.bytes", "1048588", true),
            (Topic::EVENTS, "min.insync.replicas", "1", true),
            (Topic::EVENTS, "unclean.leader.election.enable", "true", false),
            (Topic::EVENTS, "cleanup.policy", "compact", true),
            (Topic::EVENTS, "cleanup.policy", "compact,delete", true),
            (Topic::EVENTS, "retention.ms", "3600000", false),
            (Topic::EVENTS, "retention.bytes", "1000000", false),
            (Topic::STATE, "cleanup.policy", "delete", true),
            (Topic::STATE, "cleanup.policy", "compact,delete", true),
            (Topic::STATE, "delete.retention.ms", "1000", true),
            (Topic::STATE, "min.compaction.lag.ms", "604800000", false),
        ];
        for (topic, setting, value, breaks) in table {
            let policy = if topic.name == Topic::EVENTS.name { "delete" } else { "compact" };
            assert!(deviations(&topic, NEEDS, &found(&[], policy)).is_empty(), "{}", topic.name);
            let deviations = deviations(&topic, NEEDS, &found(&[(setting, value)], policy));
            let [one] = &deviations[..] else { panic!("{setting}: {} deviations", deviations.len()) };
            assert_eq!((one.setting, one.found.as_str(), one.breaks), (setting, value, breaks));
            let text = one.text("t");
            assert!(text.contains("--entity-name t --add-config") && text.contains(&format!("{setting}={value}")));
        }
    }

    #[test]
    fn more_than_needed_is_no_deviation() {
        let more = [("min.insync.replicas", "3"), ("max.message.bytes", "9000000"), ("retention.ms", "-1")];
        assert!(deviations(&Topic::EVENTS, NEEDS, &found(&more, "delete")).is_empty());
    }
}
