//! Opens the log under test without the services, with Millrace's default settings except its address.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use millrace_contracts::Names;
use millrace_log::{EmbeddedLog, KafkaLog, Log};

const DEFAULTS: &str = include_str!("../../millrace/default.toml");

/// The address of the log: brokers or a directory.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Bootstrap brokers of Apache Kafka
    #[arg(long, required_unless_present = "directory")]
    brokers: Option<String>,
    /// The directory of the embedded engine
    #[arg(long, conflicts_with = "brokers")]
    directory: Option<PathBuf>,
    /// The prefix of topics
    #[arg(long, default_value = "millrace.")]
    prefix: String,
}

impl LogArgs {
    /// Opens the log. Blocking.
    pub(crate) fn open(self) -> anyhow::Result<Log> {
        let mut defaults: toml::Table = toml::from_str(DEFAULTS)?;
        let names = Names::new(&self.prefix)?;
        let mut section = |name: &str| match defaults.remove(name) {
            Some(toml::Value::Table(section)) => Ok(section),
            _ => anyhow::bail!("the defaults have no section {name}"),
        };
        if let Some(brokers) = self.brokers {
            let mut kafka = section("kafka")?;
            kafka.insert("brokers".into(), brokers.into());
            // For throughput: larger batches, and longer timeouts for a broker that shares the cores.
            kafka.insert("linger".into(), "5ms".into());
            kafka.insert("message_timeout".into(), "30s".into());
            return Ok(Log::Kafka(KafkaLog::open(kafka.try_into()?, names)?));
        }
        let mut embedded = section("embedded")?;
        let directory = self.directory.context("neither brokers nor a directory")?;
        let directory = directory.into_os_string().into_string().map_err(|_| anyhow::anyhow!("not a plain path"))?;
        embedded.insert("directory".into(), directory.into());
        Ok(Log::Embedded(EmbeddedLog::open(embedded.try_into()?, names)?))
    }
}

#[cfg(test)]
mod tests {
    use millrace_contracts::Topic;

    use super::*;

    #[tokio::test]
    async fn opens_a_directory_with_the_defaults() {
        let directory = std::env::temp_dir().join(format!("millrace-bench-{}", std::process::id()));
        let place = LogArgs { brokers: None, directory: Some(directory.clone()), prefix: "test.".into() };
        let log = place.open().unwrap();
        assert!(log.partitions(Topic::EVENTS) > 0);
        drop(log);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
