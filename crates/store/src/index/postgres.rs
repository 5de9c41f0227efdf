//! The index in PostgreSQL: the table `message_index`, with a table for each day, and its positions, changed in one transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use millrace_contracts::{ProjectionPosition, ProjectionWrite, StoreError, WriteOutcome};
use sqlx::{AssertSqlSafe, Error, PgPool, Postgres as Database, Transaction};

use super::row::{decode, encode, page};
use super::{IndexPage, IndexPosition, IndexStep, is_dropped};
use crate::postgres::{Postgres, PostgresConfig, lock};

/// Most statements of one operation: a write locks, creates rows, deletes, inserts and moves the positions.
const STATEMENTS: u32 = 8;

/// Most rows of a delete, which must end within `postgres.statement_timeout`.
const PORTION: u32 = 20_000;

// One statement, hence one snapshot of position and rows. As many rows as are needed for $4 offsets.
const PAGE: &str = "
    SELECT stored.position, page.offsets
    FROM message_index_position AS stored
    LEFT JOIN LATERAL (
        SELECT last, offsets, sum(count) OVER (ORDER BY last) - count AS before
        FROM (SELECT last, count, offsets FROM message_index
              WHERE partition = $1 AND topic_id = $2 AND last >= $3 ORDER BY last LIMIT $4) AS first
    ) AS page ON page.before < $4
    WHERE stored.partition = $1 AND stored.position IS NOT NULL
    ORDER BY page.last";

const POSITION: &str =
    "SELECT position, last_record, owner FROM message_index_position WHERE partition = $1 AND position IS NOT NULL";

const LOCK: &str =
    "SELECT partition, position FROM message_index_position WHERE partition = ANY($1) ORDER BY partition FOR UPDATE";

const CREATE: &str = "
    INSERT INTO message_index_position (partition) SELECT p FROM unnest($1::int[]) AS p ORDER BY p
    ON CONFLICT DO NOTHING";

const INSERT: &str = "
    INSERT INTO message_index (day, partition, topic_id, last, count, offsets)
    SELECT * FROM unnest($1::int[], $2::int[], $3::bigint[], $4::bigint[], $5::int[], $6::bytea[])";

const DAYS: &str = "
    INSERT INTO message_index_day AS old (day, partition, last)
    SELECT * FROM unnest($1::int[], $2::int[], $3::bigint[])
    ON CONFLICT (day, partition) DO UPDATE SET last = greatest(old.last, excluded.last)";

const MOVE: &str = "
    UPDATE message_index_position AS old
    SET position = new.position, last_record = new.last_record, owner = new.owner
    FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[]) AS new (partition, position, last_record, owner)
    WHERE old.partition = new.partition";

const REBUILT: &str = "
    SELECT partition FROM message_index_position
    WHERE partition = ANY($1) AND position IS NULL ORDER BY partition FOR UPDATE";

const OLD_DAY: &str = "SELECT day FROM message_index_day WHERE partition = ANY($1) AND last >= 0 ORDER BY day LIMIT 1";

// By place, since a delete has no limit. A day is one table, within which places are unique.
const DELETE_PORTION: &str = "
    DELETE FROM message_index WHERE day = $1 AND ctid = ANY(ARRAY(
        SELECT ctid FROM message_index WHERE day = $1 AND partition = ANY($2) LIMIT $3))";

const RESET_PARTITION: &str =
    "UPDATE message_index_position SET position = NULL WHERE partition = $1 AND position = $2";

/// Serializes what creates and drops tables of days, until the transaction ends.
const LOCK_DAYS: &str = "SELECT pg_advisory_xact_lock(hashtext('millrace.message_index'), hashtext(current_schema()))";

type Write<'a> = ProjectionWrite<'a, IndexStep>;

#[derive(Debug, Clone)]
pub(super) struct PostgresIndex {
    postgres: Postgres,
    /// Days whose tables this process has created or found.
    days: Arc<Mutex<BTreeSet<u32>>>,
}

impl PostgresIndex {
    pub(super) async fn connect(config: &PostgresConfig) -> Result<Self, StoreError> {
        Ok(Self { postgres: Postgres::connect(config).await?, days: Arc::default() })
    }

    pub(super) async fn page(
        &self,
        partition: u32,
        topic_id: u64,
        offsets: Range<u64>,
        max: usize,
    ) -> Result<IndexPage, StoreError> {
        let read = sqlx::query_as(PAGE)
            .bind(partition.cast_signed())
            .bind(topic_id.cast_signed())
            .bind(offsets.start.cast_signed())
            .bind(i64::try_from(max).unwrap_or(i64::MAX))
            .fetch_all(self.postgres.pool().await?);
        let stored: Vec<(i64, Option<Vec<u8>>)> = self.postgres.bounded(1, read).await?;
        let position = stored.first().map_or(0, |(position, _)| position.cast_unsigned());
        let rows = stored.iter().filter_map(|(_, bytes)| bytes.as_deref());
        let rows = rows.map(|bytes| decode(bytes).ok_or_else(malformed)).collect::<Result<Vec<_>, _>>()?;
        Ok(page(position, &rows, offsets, max))
    }

    pub(super) async fn position(&self, partition: u32) -> Result<Option<IndexPosition>, StoreError> {
        let read = sqlx::query_as(POSITION).bind(partition.cast_signed()).fetch_optional(self.postgres.pool().await?);
        let stored: Option<(i64, Option<i64>, Option<i64>)> = self.postgres.bounded(1, read).await?;
        Ok(stored.map(|(position, identity, owner)| IndexPosition {
            position: ProjectionPosition {
                next_offset: position.cast_unsigned(),
                last_record: identity.map(i64::cast_unsigned),
            },
            owner: owner.map(i64::cast_unsigned),
        }))
    }

    pub(super) async fn write(&self, writes: &[Write<'_>]) -> Result<Vec<WriteOutcome>, StoreError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let pool = self.postgres.pool().await?;
        for day in writes.iter().filter(|write| !write.items.rows.is_empty()).map(|write| write.items.day) {
            self.create_day(pool, day).await?;
        }
        let rebuilt = rebuilt(writes.iter());
        let mut deleting = !rebuilt.is_empty();
        while deleting {
            deleting = self.postgres.bounded(STATEMENTS, delete_portion(pool, &rebuilt)).await?;
        }
        let written = self.postgres.bounded(STATEMENTS, write(pool, writes)).await;
        if written.is_err() {
            // Another process may have dropped a day's table.
            self.days().clear();
        }
        written
    }

    /// In a transaction of its own: it locks the table, which a transaction that has written to it must not.
    async fn create_day(&self, pool: &PgPool, day: u32) -> Result<(), StoreError> {
        if self.days().contains(&day) {
            return Ok(());
        }
        let create = async {
            let mut transaction = pool.begin().await?;
            sqlx::query(LOCK_DAYS).execute(&mut *transaction).await?;
            let table = format!(
                "CREATE TABLE IF NOT EXISTS message_index_{day} PARTITION OF message_index FOR VALUES IN ({day})"
            );
            sqlx::query(AssertSqlSafe(table)).execute(&mut *transaction).await?;
            transaction.commit().await
        };
        self.postgres.bounded(3, create).await?;
        self.days().insert(day);
        Ok(())
    }

    fn days(&self) -> std::sync::MutexGuard<'_, BTreeSet<u32>> {
        self.days.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn drop_below(&self, starts: &[u64]) -> Result<usize, StoreError> {
        let pool = self.postgres.pool().await?;
        let dropped = self.postgres.bounded(STATEMENTS, drop_below(pool, starts)).await?;
        self.days().retain(|day| !dropped.contains(day));
        Ok(dropped.len())
    }

    pub(super) async fn reset(&self) -> Result<(), StoreError> {
        let reset = sqlx::query("UPDATE message_index_position SET position = NULL");
        let reset = reset.execute(self.postgres.pool().await?);
        self.postgres.bounded(1, reset).await.map(|_| ())
    }

    pub(super) async fn reset_partition(&self, partition: u32, position: u64) -> Result<(), StoreError> {
        let reset = sqlx::query(RESET_PARTITION).bind(partition.cast_signed()).bind(position.cast_signed());
        let reset = reset.execute(self.postgres.pool().await?);
        self.postgres.bounded(1, reset).await.map(|_| ())
    }
}

fn malformed() -> StoreError {
    StoreError::stop("postgres: a row of message_index is not what was written")
}

/// Locks the positions, compares them with the expected ones, and writes the partitions that match.
async fn write(pool: &PgPool, writes: &[Write<'_>]) -> Result<Vec<WriteOutcome>, Error> {
    let mut transaction = pool.begin().await?;
    let partitions = writes.iter().map(|write| write.partition);
    let stored = lock(&mut transaction, partitions, LOCK, CREATE).await?;
    let found = |write: &Write<'_>| stored.get(&write.partition).copied().flatten();
    let matching: Vec<&Write<'_>> = writes.iter().filter(|write| found(write) == write.expected).collect();
    if !matching.is_empty() {
        drop_rebuilt(&mut transaction, &matching).await?;
        insert(&mut transaction, &matching).await?;
        let (mut partitions, mut positions, mut identities, mut owners) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for write in &matching {
            partitions.push(write.partition.cast_signed());
            positions.push(write.next.cast_signed());
            identities.push(write.last_record.map(u64::cast_signed));
            owners.push(write.items.owner.map(u64::cast_signed));
        }
        let moving = sqlx::query(MOVE).bind(partitions).bind(positions).bind(identities).bind(owners);
        moving.execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    let outcome = |write: &Write<'_>| match found(write) {
        position if position == write.expected => WriteOutcome::Applied,
        position => WriteOutcome::PositionMismatch(position),
    };
    Ok(writes.iter().map(outcome).collect())
}

/// The partitions whose rebuild begins with these writes.
fn rebuilt<'a, 'b: 'a>(writes: impl Iterator<Item = &'a Write<'b>>) -> Vec<i32> {
    writes.filter(|write| write.expected.is_none()).map(|write| write.partition.cast_signed()).collect()
}

/// Deletes some rows of earlier builds, which may come from another log; returns whether there may be more. Only of partitions
/// without a position: nothing reads their rows, and the lock keeps others from writing them anew meanwhile.
async fn delete_portion(pool: &PgPool, partitions: &[i32]) -> Result<bool, Error> {
    let mut transaction = pool.begin().await?;
    let rebuilt: Vec<i32> = sqlx::query_scalar(REBUILT).bind(partitions).fetch_all(&mut *transaction).await?;
    let day: Option<i32> = sqlx::query_scalar(OLD_DAY).bind(&rebuilt).fetch_optional(&mut *transaction).await?;
    let Some(day) = day else { return Ok(false) };
    let delete = sqlx::query(DELETE_PORTION).bind(day).bind(&rebuilt).bind(i64::from(PORTION));
    if delete.execute(&mut *transaction).await?.rows_affected() < u64::from(PORTION) {
        // The day itself remains, since it has a table to be dropped: with -1, it names no offset of the partition.
        let day =
            sqlx::query("UPDATE message_index_day SET last = -1 WHERE day = $1 AND partition = ANY($2)").bind(day);
        day.bind(&rebuilt).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(true)
}

/// Deletes what [`delete_portion`] left of earlier builds: nothing, unless another process has built one since.
async fn drop_rebuilt(transaction: &mut Transaction<'_, Database>, writes: &[&Write<'_>]) -> Result<(), Error> {
    let rebuilt = rebuilt(writes.iter().copied());
    if rebuilt.is_empty() {
        return Ok(());
    }
    let days = sqlx::query("UPDATE message_index_day SET last = -1 WHERE partition = ANY($1) AND last >= 0");
    if days.bind(&rebuilt).execute(&mut **transaction).await?.rows_affected() > 0 {
        let rows = sqlx::query("DELETE FROM message_index WHERE partition = ANY($1)").bind(&rebuilt);
        rows.execute(&mut **transaction).await?;
    }
    Ok(())
}

async fn insert(transaction: &mut Transaction<'_, Database>, writes: &[&Write<'_>]) -> Result<(), Error> {
    let (mut days, mut partitions, mut topics) = (Vec::new(), Vec::new(), Vec::new());
    let (mut lasts, mut counts, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
    // The day and the highest offset of each partition.
    let mut highest: BTreeMap<i32, (i32, i64)> = BTreeMap::new();
    for (write, row) in writes.iter().flat_map(|write| write.items.rows.iter().map(move |row| (write, row))) {
        let (day, partition) = (write.items.day.cast_signed(), write.partition.cast_signed());
        let last = row.last().cast_signed();
        days.push(day);
        partitions.push(partition);
        topics.push(row.topic_id.cast_signed());
        lasts.push(last);
        counts.push(i32::try_from(row.offsets.len()).unwrap_or(i32::MAX));
        offsets.push(encode(&row.offsets));
        let known = highest.entry(partition).or_insert((day, last));
        known.1 = known.1.max(last);
    }
    if days.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query(INSERT).bind(days).bind(partitions).bind(topics).bind(lasts).bind(counts).bind(offsets);
    rows.execute(&mut **transaction).await?;
    let (mut days, mut partitions, mut lasts) = (Vec::new(), Vec::new(), Vec::new());
    for (partition, (day, last)) in highest {
        days.push(day);
        partitions.push(partition);
        lasts.push(last);
    }
    sqlx::query(DAYS).bind(days).bind(partitions).bind(lasts).execute(&mut **transaction).await?;
    Ok(())
}

/// Drops the tables of days that the log has dropped; the oldest ones, few at a time.
async fn drop_below(pool: &PgPool, starts: &[u64]) -> Result<Vec<u32>, Error> {
    /// Most days of one transaction, which waits for a lock for each.
    const MAX_DAYS: usize = 2;

    let mut transaction = pool.begin().await?;
    sqlx::query(LOCK_DAYS).execute(&mut *transaction).await?;
    let stored: Vec<(i32, i32, i64)> =
        sqlx::query_as("SELECT day, partition, last FROM message_index_day ORDER BY day")
            .fetch_all(&mut *transaction)
            .await?;
    let mut days: BTreeMap<i32, bool> = BTreeMap::new();
    for (day, partition, last) in stored {
        let dropped = last < 0 || is_dropped(starts, partition.cast_unsigned(), last.cast_unsigned());
        *days.entry(day).or_insert(true) &= dropped;
    }
    let dropped = days.into_iter().take_while(|&(_, dropped)| dropped).take(MAX_DAYS).map(|(day, _)| day);
    let dropped: Vec<i32> = dropped.collect();
    for day in &dropped {
        let table = format!("DROP TABLE IF EXISTS message_index_{day}");
        sqlx::query(AssertSqlSafe(table)).execute(&mut *transaction).await?;
    }
    let forget = sqlx::query("DELETE FROM message_index_day WHERE day = ANY($1)").bind(&dropped);
    forget.execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(dropped.into_iter().map(i32::cast_unsigned).collect())
}
