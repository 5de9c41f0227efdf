//! The index of messages: where in a partition of `messages` the messages of each topic are. A subscription that is behind the
//! coordinator's memory reads its own messages by it, and not what other topics of the partition published in between.
//!
//! The materializer writes rows of offsets together with the position in `messages` up to which they are complete. The log has
//! the messages themselves. A day of rows is dropped once the log has dropped everything that it names.

mod embedded;
mod postgres;
mod row;

use std::ops::Range;

use millrace_contracts::{ProjectionPosition, ProjectionWrite, StoreError, WriteOutcome};

use crate::PostgresConfig;

pub use row::IndexRow;

use embedded::EmbeddedIndex;
use postgres::PostgresIndex;

/// What one step adds to a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexStep {
    /// The day of its newest record, in days since the epoch: what is dropped together.
    pub day: u32,
    /// The rows, each topic's ascending.
    pub rows: Vec<IndexRow>,
    /// The coordinator whose opening was read last.
    pub owner: Option<u64>,
}

/// How far a partition is indexed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexPosition {
    /// The position in `messages`.
    pub position: ProjectionPosition,
    /// The coordinator whose opening was read last before it.
    pub owner: Option<u64>,
}

/// Some offsets of a topic's messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexPage {
    /// The offsets, ascending.
    pub offsets: Vec<u64>,
    /// Every message of the requested range below this offset is among them. The begin of the range if the index does not
    /// reach it.
    pub until: u64,
}

/// The index. Cheap to clone.
#[derive(Debug, Clone)]
pub struct MessageIndex(Engine);

#[derive(Debug, Clone)]
enum Engine {
    Postgres(PostgresIndex),
    Embedded(EmbeddedIndex),
}

impl MessageIndex {
    /// Connects to PostgreSQL, as [`Archive::postgres`](crate::Archive::postgres) does.
    pub async fn postgres(config: &PostgresConfig) -> Result<Self, StoreError> {
        PostgresIndex::connect(config).await.map(Engine::Postgres).map(Self)
    }

    /// Opens the keyspace in the embedded engine's database. Blocks while it creates it.
    pub fn embedded(database: &fjall::Database) -> Result<Self, StoreError> {
        EmbeddedIndex::open(database).map(Engine::Embedded).map(Self)
    }

    /// A topic's messages in a range of offsets, the first ones, about `max` at most. Position and rows are of one snapshot.
    pub async fn page(
        &self,
        partition: u32,
        topic_id: u64,
        offsets: Range<u64>,
        max: usize,
    ) -> Result<IndexPage, StoreError> {
        match &self.0 {
            Engine::Postgres(index) => index.page(partition, topic_id, offsets, max).await,
            Engine::Embedded(index) => index.page(partition, topic_id, offsets, max),
        }
    }

    /// How far a partition is indexed; `None` if it must be rebuilt from the start.
    pub async fn position(&self, partition: u32) -> Result<Option<IndexPosition>, StoreError> {
        match &self.0 {
            Engine::Postgres(index) => index.position(partition).await,
            Engine::Embedded(index) => index.position(partition),
        }
    }

    /// Adds steps. Each partition is atomic by itself and occurs at most once; a rebuild deletes the partition's rows first.
    pub async fn write(&self, writes: &[ProjectionWrite<'_, IndexStep>]) -> Result<Vec<WriteOutcome>, StoreError> {
        match &self.0 {
            Engine::Postgres(index) => index.write(writes).await,
            Engine::Embedded(index) => index.write(writes),
        }
    }

    /// Drops the days whose messages are all below the first offset of their partition; `starts` has that of each partition, by
    /// number. Returns the number of days.
    pub async fn drop_below(&self, starts: &[u64]) -> Result<usize, StoreError> {
        match &self.0 {
            Engine::Postgres(index) => index.drop_below(starts).await,
            Engine::Embedded(index) => index.drop_below(starts),
        }
    }

    /// Makes the materializers rebuild everything.
    pub async fn reset(&self) -> Result<(), StoreError> {
        match &self.0 {
            Engine::Postgres(index) => index.reset().await,
            Engine::Embedded(index) => index.reset(),
        }
    }

    /// Makes the materializer rebuild a partition, if its position is still this one.
    pub async fn reset_partition(&self, partition: u32, position: u64) -> Result<(), StoreError> {
        match &self.0 {
            Engine::Postgres(index) => index.reset_partition(partition, position).await,
            Engine::Embedded(index) => index.reset_partition(partition, position),
        }
    }
}

/// Whether the log has dropped everything up to an offset.
fn is_dropped(starts: &[u64], partition: u32, last: u64) -> bool {
    starts.get(partition as usize).is_some_and(|&start| last < start)
}
