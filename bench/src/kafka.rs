//! The log that the processor is measured on.

use std::collections::BTreeMap;

use clap::Args;
use millrace_contracts::Names;
use millrace_log::{KafkaConfig, KafkaLog};

/// Where it is.
#[derive(Debug, Args)]
pub(crate) struct Kafka {
    /// Bootstrap brokers
    #[arg(long)]
    brokers: String,
    /// The prefix of its topics
    #[arg(long)]
    prefix: String,
    /// Partitions of its topics
    #[arg(long, default_value_t = 12)]
    pub(crate) partitions: u32,
}

impl Kafka {
    pub(crate) fn open(&self) -> anyhow::Result<KafkaLog> {
        let config = KafkaConfig {
            brokers: self.brokers.clone(),
            partitions: self.partitions,
            replication_factor: 1,
            min_insync_replicas: 1,
            queue_records: 500_000,
            queue_kib: 262_144,
            linger_ms: 5,
            message_timeout_ms: 30_000,
            transaction_timeout_ms: 10_000,
            session_timeout_ms: 10_000,
            properties: BTreeMap::new(),
        };
        Ok(KafkaLog::open(config, Names::new(&self.prefix)?)?)
    }
}
