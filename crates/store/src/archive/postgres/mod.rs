//! The archive in PostgreSQL: one transaction changes the tables `hourly` and `projection`.

mod config;
mod connect;
mod error;
mod extent;
mod snapshot;
mod write;

use std::ops::Range;
use std::sync::Arc;

use millrace_contracts::{
    CountedPosition, Exactness, Hour, HourlyCount, Next, ProjectionPosition, ProjectionWrite, StoreError, WriteOutcome,
};
use sqlx::PgPool;
use tokio::sync::OnceCell;

use crate::{HourRead, PartitionSnapshot, Totals};

pub use config::PostgresConfig;

use error::classify;

#[derive(Debug, Clone)]
pub(super) struct PostgresArchive(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: PostgresConfig,
    pool: PgPool,
    /// Set once the schema is migrated.
    migrated: OnceCell<()>,
    partitions: u32,
}

// One statement, hence one snapshot of counts and completeness.
const HOUR: &str = "
    SELECT coalesce(sum(clicks), 0)::bigint, coalesce(sum(impressions), 0)::bigint,
           coalesce(sum(unique_users), 0)::bigint, coalesce(bool_and(exact), true),
           (SELECT count(*) FROM projection WHERE partition < $2 AND position IS NOT NULL AND complete)
    FROM hourly WHERE hour = to_timestamp($1::bigint) AND partition < $2";

// The identity of another position is none: an earlier version moved the position since.
const POSITION: &str = "
    SELECT position, CASE WHEN last_record_of = position THEN last_record END
    FROM projection WHERE partition = $1 AND position IS NOT NULL";

const COUNTED: &str = "
    SELECT partition, counted, counted_at
    FROM projection WHERE partition < $1 AND position IS NOT NULL AND complete AND counted IS NOT NULL AND counted_at IS NOT NULL";

impl PostgresArchive {
    pub(super) async fn connect(config: &PostgresConfig, partitions: u32) -> Result<Self, StoreError> {
        let (config, migrated) = (config.clone(), OnceCell::new());
        let archive = Self(Arc::new(Inner { pool: connect::pool(&config)?, config, migrated, partitions }));
        match archive.pool().await {
            Err(error) if error.next == Next::Retry => {
                tracing::warn!(%error, "PostgreSQL is unreachable: retrying at the next use");
            }
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        Ok(archive)
    }

    /// The pool, once the schema is migrated.
    async fn pool(&self) -> Result<&PgPool, StoreError> {
        self.0.migrated.get_or_try_init(|| connect::migrate(&self.0.config)).await?;
        Ok(&self.0.pool)
    }

    pub(super) async fn hour(&self, hour: Hour) -> Result<HourRead, StoreError> {
        let read = sqlx::query_as(HOUR)
            .bind(hour.start_ms() / 1_000)
            .bind(self.0.partitions.cast_signed())
            .fetch_one(self.pool().await?);
        let (clicks, impressions, unique_users, exact, complete): (i64, i64, i64, bool, i64) =
            self.bounded(read).await?;
        if complete != i64::from(self.0.partitions) {
            return Ok(HourRead::Rebuilding);
        }
        Ok(HourRead::Complete(Totals {
            clicks: clicks.cast_unsigned(),
            impressions: impressions.cast_unsigned(),
            unique_users: unique_users.cast_unsigned(),
            exactness: if exact { Exactness::Exact } else { Exactness::Approximate },
        }))
    }

    pub(super) async fn position(&self, partition: u32) -> Result<Option<ProjectionPosition>, StoreError> {
        let read = sqlx::query_as(POSITION).bind(partition.cast_signed()).fetch_optional(self.pool().await?);
        let stored: Option<(i64, Option<i64>)> = self.bounded(read).await?;
        Ok(stored.map(|(position, identity)| ProjectionPosition {
            next_offset: position.cast_unsigned(),
            last_record: identity.map(i64::cast_unsigned),
        }))
    }

    pub(super) async fn counted(&self) -> Result<Vec<Option<CountedPosition>>, StoreError> {
        let read = sqlx::query_as(COUNTED).bind(self.0.partitions.cast_signed()).fetch_all(self.pool().await?);
        let stored: Vec<(i32, i64, i64)> = self.bounded(read).await?;
        let mut counted = vec![None; self.0.partitions as usize];
        for (partition, next_offset, log_time_ms) in stored {
            let (partition, next_offset) = (partition.cast_unsigned(), next_offset.cast_unsigned());
            if let Some(slot) = counted.get_mut(partition as usize) {
                *slot = Some(CountedPosition { partition, next_offset, log_time_ms });
            }
        }
        Ok(counted)
    }

    pub(super) async fn snapshot(
        &self,
        partitions: Range<u32>,
        hours: Range<Hour>,
    ) -> Result<Vec<PartitionSnapshot>, StoreError> {
        let read = snapshot::read(self.pool().await?, partitions, hours);
        self.bounded(read).await
    }

    pub(super) async fn reset(&self) -> Result<(), StoreError> {
        let reset = sqlx::query("UPDATE projection SET position = NULL").execute(self.pool().await?);
        self.bounded(reset).await.map(|_| ())
    }

    pub(super) async fn write(
        &self,
        writes: &[ProjectionWrite<'_, [HourlyCount]>],
    ) -> Result<Vec<WriteOutcome>, StoreError> {
        self.bounded(write::write(self.pool().await?, writes)).await
    }

    /// Adds a timeout on the client, since the server's timeouts do not help if it vanished without closing the connection.
    async fn bounded<T>(&self, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
        let config = &self.0.config;
        // A write takes up to four statements, after the wait for a connection.
        let longest = config.acquire_timeout.0 + 4 * config.statement_timeout.0;
        match tokio::time::timeout(longest, work).await {
            Ok(done) => done.map_err(classify),
            Err(_) => Err(StoreError::retry(format!("postgres: no response within {longest:?}"))),
        }
    }
}
