//! The archive: every hour, for ever. PostgreSQL, or the embedded engine's own database.

mod embedded;
mod postgres;
mod range;

use std::ops::Range;

use millrace_contracts::{Hour, HourlyCount, ProjectionWrite, StoreError, WriteOutcome};

use crate::{Answer, HourlyStore, Part};

pub use postgres::PostgresConfig;
pub use range::Edges;

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
    /// Connects to PostgreSQL and brings its schema up to date, one process at a time. A server that is away now is not an
    /// error: the schema is looked after before anything is read or written.
    pub async fn postgres(config: &PostgresConfig, partitions: u32) -> Result<Self, StoreError> {
        PostgresArchive::connect(config, partitions).await.map(Engine::Postgres).map(Self)
    }

    /// Opens the views in the embedded engine's database. Blocking, but only for the creation of two keyspaces.
    pub fn embedded(database: &fjall::Database, partitions: u32) -> Result<Self, StoreError> {
        EmbeddedArchive::open(database, partitions).map(Engine::Embedded).map(Self)
    }

    /// The counts of any hour.
    pub async fn hour(&self, hour: Hour) -> Result<Answer, StoreError> {
        match &self.0 {
            Engine::Postgres(archive) => archive.hour(hour).await,
            Engine::Embedded(archive) => archive.hour(hour),
        }
    }

    /// A look at these partitions, consistent over all of them. All rows are in memory at once: ask for a partition at a
    /// time where there are many hours.
    pub async fn snapshot(&self, partitions: Range<u32>, hours: Range<Hour>) -> Result<Vec<Part>, StoreError> {
        match &self.0 {
            Engine::Postgres(archive) => archive.snapshot(partitions, hours).await,
            Engine::Embedded(archive) => archive.snapshot(partitions, &hours),
        }
    }

    /// Makes the materializers build everything again; until they have, the answer is [`Answer::Rebuilding`].
    pub async fn reset(&self) -> Result<(), StoreError> {
        match &self.0 {
            Engine::Postgres(archive) => archive.reset().await,
            Engine::Embedded(archive) => archive.reset(),
        }
    }

    /// Something to write with.
    pub fn writer(&self) -> ArchiveWriter {
        ArchiveWriter(self.0.clone())
    }
}

/// Writes the archive.
#[derive(Debug)]
pub struct ArchiveWriter(Engine);

impl HourlyStore for ArchiveWriter {
    async fn position(&mut self, partition: u32) -> Result<Option<u64>, StoreError> {
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
