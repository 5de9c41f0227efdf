//! The first and the last hour with counts: two ends of an index.

use millrace_contracts::{Hour, StoreError};

use super::PostgresArchive;
use crate::archive::range::Edges;

// One statement is one snapshot: the edges and the completeness belong together.
const EDGES: &str = "
    SELECT extract(epoch FROM (SELECT min(hour) FROM hourly WHERE partition < $1))::bigint,
           extract(epoch FROM (SELECT max(hour) FROM hourly WHERE partition < $1))::bigint,
           (SELECT count(*) FROM projection WHERE partition < $1 AND position IS NOT NULL AND complete)";

impl PostgresArchive {
    pub(in crate::archive) fn partitions(&self) -> u32 {
        self.0.partitions
    }

    pub(in crate::archive) async fn edges(&self) -> Result<Option<Edges>, StoreError> {
        let partitions = self.0.partitions;
        let read = sqlx::query_as(EDGES).bind(partitions.cast_signed()).fetch_one(self.pool().await?);
        let (first, last, complete): (Option<i64>, Option<i64>, i64) = self.bounded(read).await?;
        let hour = |seconds: i64| Hour::of_ms(seconds * 1_000);
        Ok((complete == i64::from(partitions)).then(|| Edges(first.map(hour).zip(last.map(hour)))))
    }
}
