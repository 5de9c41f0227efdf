//! The extent of the archive: both ends of an index.

use millrace_contracts::{Hour, StoreError};

use super::PostgresArchive;
use crate::archive::range::ArchiveExtent;

// One statement, hence one snapshot of extent and completeness.
const EXTENT: &str = "
    SELECT extract(epoch FROM (SELECT min(hour) FROM hourly WHERE partition < $1))::bigint,
           extract(epoch FROM (SELECT max(hour) FROM hourly WHERE partition < $1))::bigint,
           (SELECT count(*) FROM projection WHERE partition < $1 AND position IS NOT NULL AND complete)";

impl PostgresArchive {
    pub(in crate::archive) async fn extent(&self) -> Result<Option<ArchiveExtent>, StoreError> {
        let partitions = self.partitions;
        let read = sqlx::query_as(EXTENT).bind(partitions.cast_signed()).fetch_one(self.postgres.pool().await?);
        let (first, last, complete): (Option<i64>, Option<i64>, i64) = self.bounded(read).await?;
        let hour = |seconds: i64| Hour::of_ms(seconds * 1_000);
        Ok((complete == i64::from(partitions)).then(|| ArchiveExtent(first.map(hour).zip(last.map(hour)))))
    }
}
