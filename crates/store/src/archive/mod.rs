//! The archive: every hour, without expiry. PostgreSQL, or the embedded engine's database.

mod embedded;
mod postgres;
mod range;

use std::ops::Range;

use millrace_contracts::{
    CountedPosition, Hour, HourlyCount, ProjectionPosition, ProjectionWrite, StoreError, WriteOutcome,
};

use crate::{HourRead, HourlyStore, PartitionSnapshot, PostgresConfig};

pub use range::ArchiveExtent;

use embedded::EmbeddedArchive;
use postgres::PostgresArchive;

/// The archive. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Archive(Engine);

#[derive(Debug, Clone)]
enum Engine {
    Postgres(PostgresArchive),
    Embedded(EmbeddedArchive),
}

impl Archive {
    /// Connects to PostgreSQL and migrates its schema, one process at a time. An unreachable server is not an error: the
    /// first use migrates the schema.
    pub async fn postgres(config: &PostgresConfig, partitions: u32) -> Result<Self, StoreError> {
        PostgresArchive::connect(config, partitions).await.map(Engine::Postgres).map(Self)
    }

    /// Opens the keyspaces in the embedded engine's database. Blocks while it creates them.
    pub fn embedded(database: &fjall::Database, partitions: u32) -> Result<Self, StoreError> {
        EmbeddedArchive::open(database, partitions).map(Engine::Embedded).map(Self)
    }

    /// The number of partitions whose counts it adds up.
    pub const fn partitions(&self) -> u32 {
        match &self.0 {
            Engine::Postgres(archive) => archive.partitions,
            Engine::Embedded(archive) => archive.partitions,
        }
    }

    /// The counts of any hour.
    pub async fn hour(&self, hour: Hour) -> Result<HourRead, StoreError> {
        match &self.0 {
            Engine::Postgres(archive) => archive.hour(hour).await,
            Engine::Embedded(archive) => archive.hour(hour),
        }
    }

    /// Up to which position each partition's events are counted here; `None` of one that is being rebuilt, and of one that the
    /// processor has not counted since it writes this. What is read after this call contains at least that.
    pub async fn counted(&self) -> Result<Vec<Option<CountedPosition>>, StoreError> {
        match &self.0 {
            Engine::Postgres(archive) => archive.counted().await,
            Engine::Embedded(archive) => archive.counted(),
        }
    }

    /// A snapshot of these partitions, consistent across all of them. It holds all rows in memory: for many hours, read one
    /// partition at a time.
    pub async fn snapshot(
        &self,
        partitions: Range<u32>,
        hours: Range<Hour>,
    ) -> Result<Vec<PartitionSnapshot>, StoreError> {
        match &self.0 {
            Engine::Postgres(archive) => archive.snapshot(partitions, hours).await,
            Engine::Embedded(archive) => {
                // A range may have many rows, and the caller's thread serves other requests.
                let archive = archive.clone();
                let read = tokio::task::spawn_blocking(move || archive.snapshot(partitions, &hours)).await;
                read.unwrap_or_else(|error| Err(StoreError::retry(format!("embedded archive: {error}"))))
            }
        }
    }

    /// Makes the materializers rebuild everything. Until then, reads return [`HourRead::Rebuilding`].
    pub async fn reset(&self) -> Result<(), StoreError> {
        match &self.0 {
            Engine::Postgres(archive) => archive.reset().await,
            Engine::Embedded(archive) => archive.reset(),
        }
    }

    /// A writer for this archive.
    pub fn writer(&self) -> ArchiveWriter {
        ArchiveWriter(self.0.clone())
    }
}

/// Writes the archive.
#[derive(Debug)]
pub struct ArchiveWriter(Engine);

impl HourlyStore for ArchiveWriter {
    async fn position(&mut self, partition: u32) -> Result<Option<ProjectionPosition>, StoreError> {
        match &self.0 {
            Engine::Postgres(archive) => archive.position(partition).await,
            Engine::Embedded(archive) => archive.position(partition),
        }
    }

    async fn write(&mut self, writes: &[ProjectionWrite<'_, [HourlyCount]>]) -> Result<Vec<WriteOutcome>, StoreError> {
        match &self.0 {
            Engine::Postgres(archive) => archive.write(writes).await,
            Engine::Embedded(archive) => archive.write(writes),
        }
    }
}
