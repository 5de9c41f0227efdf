//! The Kafka engine: brokers and topics, Redis, PostgreSQL.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use millrace_base::Clock;
use millrace_contracts::{Hour, StoreError};
use millrace_log::{Log, LogError, TopicInfo};
use millrace_store::{Archive, LiveHours, LiveWindow};
use tokio::time::timeout;

use super::{Finding, positions};
use crate::settings::Settings;
use crate::start::open_log;
use crate::text::plural;

/// Timeout of each check.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Checks each dependency, whatever the result of the others.
pub(super) async fn examine(settings: &Settings, report: &mut (dyn FnMut(Finding) + Send)) {
    let log = brokers(settings, report).await;
    let partitions = settings.kafka.partitions;

    let window = LiveWindow::new(settings.redis.live_hours, Clock::system());
    let names = settings.names();
    // Connecting succeeds without a server, since a service connects long before the first use: so read, too.
    let now = Hour::of_ms(Timestamp::now().as_millisecond());
    let redis = async {
        let live = LiveHours::connect(&settings.redis, &names, partitions, window).await?;
        live.hour(now).await?;
        Ok::<_, StoreError>(live)
    };
    match within(redis).await {
        Ok(live) => {
            report(Finding::ok("redis", "responds; its version is supported, and it evicts nothing"));
            if let Some(log) = &log {
                report(positions::store(log, "redis", live.writer()).await);
            }
        }
        Err(why) => {
            report(Finding::fail(
                "redis",
                without_name("redis", &why),
                "start it, or set redis.url; maxmemory-policy must be noeviction",
            ));
        }
    }
    let postgres = async {
        let archive = Archive::postgres(&settings.postgres, partitions).await?;
        archive.hour(now).await?;
        Ok::<_, StoreError>(archive)
    };
    match within(postgres).await {
        Ok(archive) => {
            report(Finding::ok("postgres", "responds; its schema is this version's"));
            if let Some(log) = &log {
                report(positions::store(log, "archive", archive.writer()).await);
            }
        }
        Err(why) => report(Finding::fail(
            "postgres",
            without_name("postgres", &why),
            "start it, or set postgres.url and postgres.schema",
        )),
    }
    if let Some(log) = log {
        if let Some(finding) = positions::journal(&log, &settings.journal).await {
            report(finding);
        }
        log.close(settings.shutdown_grace.0).await;
    }
}

/// The log, if the brokers respond.
async fn brokers(settings: &Settings, report: &mut (dyn FnMut(Finding) + Send)) -> Option<Log> {
    let log = match within(open_log(settings, &settings.names())).await {
        Ok(log) => log,
        Err(why) => {
            report(Finding::fail("kafka", why, "start the brokers, or set kafka.brokers"));
            return None;
        }
    };
    report(Finding::ok("kafka", format!("the brokers at {} respond", settings.kafka.brokers)));
    match within(log.describe()).await {
        Ok(infos) => infos.iter().for_each(|info| report(topic(info, settings.kafka.partitions))),
        Err(why) => report(Finding::fail("topics", why, "see the brokers' logs")),
    }
    match within(log.check_topics()).await {
        Ok(warnings) if warnings.is_empty() => report(Finding::ok("topic settings", "as the guarantees need them")),
        Ok(warnings) => {
            for warning in warnings {
                report(Finding::warn("topic settings", warning, "follow the message, unless it is meant to be so"));
            }
        }
        Err(why) => report(Finding::fail("topic settings", why, "follow the message")),
    }
    Some(log)
}

fn topic(info: &TopicInfo, configured: u32) -> Finding {
    let what = format!("topic {}", info.full_name);
    let configured = info.topic.partitions.count(configured);
    let found = info.partitions.len() as u64;
    let shown = plural(found, "partition");
    match found {
        0 => Finding::warn(&what, "does not exist yet", "nothing: the first service creates it at startup"),
        _ if found == u64::from(configured) => Finding::ok(&what, shown),
        _ => Finding::fail(
            &what,
            format!("{shown}, but kafka.partitions is {configured}"),
            "set kafka.partitions to the topic's number; otherwise two partitions would count the same users",
        ),
    }
}

/// An error without the name that the finding has, too.
fn without_name<'a>(name: &str, why: &'a str) -> &'a str {
    why.strip_prefix(name).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(why)
}

/// The result within the timeout; an error as text.
async fn within<T, E: std::fmt::Display>(attempt: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match timeout(TIMEOUT, attempt).await {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err(LogError::unavailable(format!("no response within {TIMEOUT:?}")).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use millrace_contracts::Topic;
    use millrace_log::PartitionInfo;

    use super::super::Level;
    use super::*;

    #[test]
    fn a_different_number_of_partitions_fails() {
        let info = |partitions| TopicInfo {
            topic: Topic::EVENTS,
            full_name: "millrace.analytics.events".into(),
            partitions: vec![PartitionInfo { start: 0, end: 0 }; partitions],
        };
        let levels = [0, 12, 3].map(|found| topic(&info(found), 12).level);
        assert_eq!(levels, [Level::Warn, Level::Ok, Level::Fail]);
        assert_eq!((&*topic(&info(1), 1).found, &*topic(&info(2), 2).found), ("1 partition", "2 partitions"));
    }
}
