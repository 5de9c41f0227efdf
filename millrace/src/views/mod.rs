//! The read models as a whole: compares them with the log (`verify`), rebuilds them from it (`rebuild`).
//!
//! With Kafka the tools read the stores directly. The embedded directory belongs to one process, so a running one serves its
//! archive on its admin listener ([`server`]).

mod compare;
mod fold;
mod rebuild;
mod remote;
mod report;
mod server;
mod verify;

use std::ops::Range;

use millrace_base::Clock;
use millrace_contracts::{Hour, StoreError};
use millrace_store::{Archive, LiveHours, LiveWindow, PartitionSnapshot};

use crate::settings::{Engine, Settings};

pub(crate) use rebuild::{PartitionProgress, follow, progress};
pub(crate) use report::Report;
pub(crate) use server::router;
pub(crate) use verify::verify;

/// One read model.
#[derive(Debug, Clone)]
pub(crate) enum View {
    /// The live hours.
    Redis(LiveHours),
    /// Every hour.
    Archive(Archive),
}

impl View {
    /// The read models of the Kafka engine.
    pub(crate) async fn of_kafka(settings: &Settings) -> Result<Vec<Self>, StoreError> {
        debug_assert_eq!(settings.engine, Engine::Kafka, "the embedded archive is in the log's own database");
        let partitions = settings.kafka.partitions;
        let window = LiveWindow::new(settings.redis.live_hours, Clock::system());
        let live = LiveHours::connect(&settings.redis, &settings.names(), partitions, window).await?;
        let archive = Archive::postgres(&settings.postgres, partitions).await?;
        Ok(vec![Self::Redis(live), Self::Archive(archive)])
    }

    /// Its name in commands, logs and metrics.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::Archive(_) => "archive",
        }
    }

    /// The part of the hours that it must contain now.
    fn hours(&self, hours: &Range<Hour>) -> Range<Hour> {
        match self {
            Self::Redis(live) => hours.start.max(live.live().start)..hours.end.min(live.live().end),
            Self::Archive(_) => hours.clone(),
        }
    }

    async fn snapshot(&self, partitions: Range<u32>, hours: Range<Hour>) -> Result<Vec<PartitionSnapshot>, StoreError> {
        match self {
            Self::Redis(live) => live.snapshot(partitions, hours).await,
            Self::Archive(archive) => archive.snapshot(partitions, hours).await,
        }
    }

    /// Empties it; the materializers rebuild it.
    pub(crate) async fn reset(&self) -> Result<(), StoreError> {
        match self {
            Self::Redis(live) => live.reset().await,
            Self::Archive(archive) => archive.reset().await,
        }
    }
}
