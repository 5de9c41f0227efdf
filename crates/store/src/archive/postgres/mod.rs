//! The archive in PostgreSQL: one transaction changes the tables `hourly` and `projection`.

mod extent;
mod snapshot;
mod write;

use std::ops::Range;

use millrace_contracts::{
    CountedPosition, Exactness, Hour, HourlyCount, ProjectionPosition, ProjectionWrite, StoreError, WriteOutcome,
};

use crate::postgres::{Postgres, PostgresConfig};
use crate::{HourRead, PartitionSnapshot, Totals};

/// Most statements of one operation: a write locks, creates rows, upserts and moves the positions.
const STATEMENTS: u32 = 4;

#[derive(Debug, Clone)]
pub(super) struct PostgresArchive {
    postgres: Postgres,
    pub(super) partitions: u32,
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
        Ok(Self { postgres: Postgres::connect(config).await?, partitions })
    }

    pub(super) async fn hour(&self, hour: Hour) -> Result<HourRead, StoreError> {
        let read = sqlx::query_as(HOUR)
            .bind(hour.start_ms() / 1_000)
            .bind(self.partitions.cast_signed())
            .fetch_one(self.postgres.pool().await?);
        let (clicks, impressions, unique_users, exact, complete): (i64, i64, i64, bool, i64) =
            self.bounded(read).await?;
        if complete != i64::from(self.partitions) {
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
        let read = sqlx::query_as(POSITION).bind(partition.cast_signed()).fetch_optional(self.postgres.pool().await?);
        let stored: Option<(i64, Option<i64>)> = self.bounded(read).await?;
        Ok(stored.map(|(position, identity)| ProjectionPosition {
            next_offset: position.cast_unsigned(),
            last_record: identity.map(i64::cast_unsigned),
        }))
    }

    pub(super) async fn counted(&self) -> Result<Vec<Option<CountedPosition>>, StoreError> {
        let read = sqlx::query_as(COUNTED).bind(self.partitions.cast_signed()).fetch_all(self.postgres.pool().await?);
        let stored: Vec<(i32, i64, i64)> = self.bounded(read).await?;
        let mut counted = vec![None; self.partitions as usize];
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
        let read = snapshot::read(self.postgres.pool().await?, partitions, hours);
        self.bounded(read).await
    }

    pub(super) async fn reset(&self) -> Result<(), StoreError> {
        let reset = sqlx::query("UPDATE projection SET position = NULL").execute(self.postgres.pool().await?);
        self.bounded(reset).await.map(|_| ())
    }

    pub(super) async fn write(
        &self,
        writes: &[ProjectionWrite<'_, [HourlyCount]>],
    ) -> Result<Vec<WriteOutcome>, StoreError> {
        self.bounded(write::write(self.postgres.pool().await?, writes)).await
    }

    async fn bounded<T>(&self, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, StoreError> {
        self.postgres.bounded(STATEMENTS, work).await
    }
}
