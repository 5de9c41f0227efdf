//! A consistent snapshot of partitions: positions and rows in one statement.

use std::ops::Range;

use millrace_contracts::{Exactness, Hour, HourlyCount};
use sqlx::postgres::PgRow;
use sqlx::{Error, FromRow, PgPool, Row as _};

use crate::PartitionSnapshot;

const SNAPSHOT: &str = "
    SELECT requested.partition, stored.position, coalesce(stored.complete, false) AS complete,
           extract(epoch FROM hour)::bigint AS hour, generation, next_offset, clicks, impressions, unique_users, exact
    FROM generate_series($1::int, $2::int - 1) AS requested (partition)
    LEFT JOIN projection AS stored ON stored.partition = requested.partition
    LEFT JOIN hourly ON hourly.partition = requested.partition
          AND hour >= to_timestamp($3::bigint) AND hour < to_timestamp($4::bigint)
    ORDER BY requested.partition, hour";

/// One row of the result; without counts if the partition has none.
struct SnapshotRow {
    partition: i32,
    position: Option<i64>,
    complete: bool,
    count: Count,
}

struct Count {
    hour: Option<i64>,
    generation: Option<i64>,
    next_offset: Option<i64>,
    clicks: Option<i64>,
    impressions: Option<i64>,
    unique_users: Option<i64>,
    exact: Option<bool>,
}

impl FromRow<'_, PgRow> for SnapshotRow {
    fn from_row(row: &PgRow) -> Result<Self, Error> {
        Ok(Self {
            partition: row.try_get("partition")?,
            position: row.try_get("position")?,
            complete: row.try_get("complete")?,
            count: Count {
                hour: row.try_get("hour")?,
                generation: row.try_get("generation")?,
                next_offset: row.try_get("next_offset")?,
                clicks: row.try_get("clicks")?,
                impressions: row.try_get("impressions")?,
                unique_users: row.try_get("unique_users")?,
                exact: row.try_get("exact")?,
            },
        })
    }
}

impl Count {
    fn of(&self, partition: u32) -> Option<HourlyCount> {
        Some(HourlyCount {
            hour: Hour::of_ms(self.hour? * 1_000),
            partition,
            generation: u32::try_from(self.generation?).ok()?,
            next_offset: self.next_offset?.cast_unsigned(),
            clicks: self.clicks?.cast_unsigned(),
            impressions: self.impressions?.cast_unsigned(),
            unique_users: self.unique_users?.cast_unsigned(),
            exactness: if self.exact? { Exactness::Exact } else { Exactness::Approximate },
        })
    }
}

pub(super) async fn read(
    pool: &PgPool,
    partitions: Range<u32>,
    hours: Range<Hour>,
) -> Result<Vec<PartitionSnapshot>, Error> {
    let rows: Vec<SnapshotRow> = sqlx::query_as(SNAPSHOT)
        .bind(partitions.start.cast_signed())
        .bind(partitions.end.cast_signed())
        .bind(hours.start.start_ms() / 1_000)
        .bind(hours.end.start_ms() / 1_000)
        .fetch_all(pool)
        .await?;
    let mut parts: Vec<PartitionSnapshot> = Vec::new();
    for row in rows {
        let partition = row.partition.cast_unsigned();
        if parts.last().is_none_or(|part| part.partition != partition) {
            let position = row.position.map(i64::cast_unsigned);
            // A partition without a position is to be rebuilt, whatever its flag.
            let complete = row.complete && position.is_some();
            parts.push(PartitionSnapshot { partition, position, complete, counts: Vec::new() });
        }
        if let (Some(part), Some(count)) = (parts.last_mut(), row.count.of(partition)) {
            part.counts.push(count);
        }
    }
    Ok(parts)
}
