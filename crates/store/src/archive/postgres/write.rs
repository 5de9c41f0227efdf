//! Writes: one transaction for all partitions of a step.

use millrace_contracts::{Exactness, HourlyCount, ProjectionWrite, WriteOutcome};
use sqlx::{Error, PgPool, Postgres, Transaction};

use crate::postgres::lock;

const LOCK: &str = "SELECT partition, position FROM projection WHERE partition = ANY($1) ORDER BY partition FOR UPDATE";

const CREATE: &str =
    "INSERT INTO projection (partition) SELECT p FROM unnest($1::int[]) AS p ORDER BY p ON CONFLICT DO NOTHING";

const UPSERT: &str = "
    INSERT INTO hourly (hour, partition, generation, next_offset, clicks, impressions, unique_users, exact)
    SELECT to_timestamp(h), p, g, o, c, i, u, e
    FROM unnest($1::bigint[], $2::int[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bool[])
         AS t (h, p, g, o, c, i, u, e)
    ON CONFLICT (hour, partition) DO UPDATE
    SET generation = excluded.generation, next_offset = excluded.next_offset, clicks = excluded.clicks,
        impressions = excluded.impressions, unique_users = excluded.unique_users, exact = excluded.exact
    WHERE (excluded.generation, excluded.next_offset) > (hourly.generation, hourly.next_offset)";

// Only catching up completes a rebuild. A write that contains no end of a step leaves what is counted, but for a rebuild.
const MOVE: &str = "
    UPDATE projection AS old SET position = new.position, last_record = new.last_record, last_record_of = new.position,
           complete = new.caught_up OR (old.complete AND old.position IS NOT NULL),
           counted = CASE WHEN new.counted IS NOT NULL OR old.position IS NULL THEN new.counted ELSE old.counted END,
           counted_at = CASE WHEN new.counted IS NOT NULL OR old.position IS NULL THEN new.counted_at ELSE old.counted_at END
    FROM unnest($1::int[], $2::bigint[], $3::bool[], $4::bigint[], $5::bigint[], $6::bigint[])
         AS new (partition, position, caught_up, last_record, counted, counted_at)
    WHERE old.partition = new.partition";

/// Locks the positions, compares them with the expected ones, and writes the partitions that match.
pub(super) async fn write(
    pool: &PgPool,
    writes: &[ProjectionWrite<'_, [HourlyCount]>],
) -> Result<Vec<WriteOutcome>, Error> {
    if writes.is_empty() {
        return Ok(Vec::new());
    }
    let mut transaction = pool.begin().await?;
    let partitions = writes.iter().map(|write| write.partition);
    let stored = lock(&mut transaction, partitions, LOCK, CREATE).await?;
    let found = |write: &ProjectionWrite<'_, [HourlyCount]>| stored.get(&write.partition).copied().flatten();

    let matching: Vec<&ProjectionWrite<'_, [HourlyCount]>> =
        writes.iter().filter(|write| found(write) == write.expected).collect();
    if !matching.is_empty() {
        drop_rebuilt(&mut transaction, &matching).await?;
        upsert(&mut transaction, &matching).await?;
        let mut partitions = Vec::new();
        let mut positions = Vec::new();
        let mut caught_up = Vec::new();
        let mut identities = Vec::new();
        let mut counted = Vec::new();
        let mut counted_at = Vec::new();
        for write in &matching {
            partitions.push(write.partition.cast_signed());
            positions.push(write.next.cast_signed());
            caught_up.push(write.caught_up);
            identities.push(write.last_record.map(u64::cast_signed));
            counted.push(write.counted.map(|counted| counted.next_offset.cast_signed()));
            counted_at.push(write.counted.map(|counted| counted.log_time_ms));
        }
        let moving = sqlx::query(MOVE).bind(partitions).bind(positions).bind(caught_up).bind(identities);
        moving.bind(counted).bind(counted_at).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;

    let result = |write| match found(write) {
        position if position == write.expected => WriteOutcome::Applied,
        position => WriteOutcome::PositionMismatch(position),
    };
    Ok(writes.iter().map(result).collect())
}

/// Deletes the rows of earlier builds, which may come from another log.
async fn drop_rebuilt(
    transaction: &mut Transaction<'_, Postgres>,
    writes: &[&ProjectionWrite<'_, [HourlyCount]>],
) -> Result<(), Error> {
    let rebuilt: Vec<i32> =
        writes.iter().filter(|write| write.expected.is_none()).map(|write| write.partition.cast_signed()).collect();
    if !rebuilt.is_empty() {
        let delete = sqlx::query("DELETE FROM hourly WHERE partition = ANY($1)").bind(rebuilt);
        delete.execute(&mut **transaction).await?;
    }
    Ok(())
}

async fn upsert(
    transaction: &mut Transaction<'_, Postgres>,
    writes: &[&ProjectionWrite<'_, [HourlyCount]>],
) -> Result<(), Error> {
    let mut hours = Vec::new();
    let mut partitions = Vec::new();
    let mut generations = Vec::new();
    let mut offsets = Vec::new();
    let mut clicks = Vec::new();
    let mut impressions = Vec::new();
    let mut users = Vec::new();
    let mut exact = Vec::new();
    for (partition, count) in writes.iter().flat_map(|write| write.items.iter().map(|count| (write.partition, count))) {
        hours.push(count.hour.start_ms() / 1_000);
        partitions.push(partition.cast_signed());
        generations.push(i64::from(count.generation));
        offsets.push(count.next_offset.cast_signed());
        clicks.push(count.clicks.cast_signed());
        impressions.push(count.impressions.cast_signed());
        users.push(count.unique_users.cast_signed());
        exact.push(count.exactness == Exactness::Exact);
    }
    if hours.is_empty() {
        return Ok(());
    }
    let upsert = sqlx::query(UPSERT).bind(hours).bind(partitions).bind(generations).bind(offsets);
    upsert.bind(clicks).bind(impressions).bind(users).bind(exact).execute(&mut **transaction).await?;
    Ok(())
}
