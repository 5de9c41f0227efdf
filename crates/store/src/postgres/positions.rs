//! Positions of read models by partition: the rows that a write locks and compares before it moves them.

use std::collections::HashMap;

use sqlx::{Error, Postgres, Transaction};

/// The stored positions of these partitions, locked until the transaction ends. `lock` selects partition and position for
/// update, ordered by partition, so that two writers cannot deadlock; `create` inserts the rows that are missing.
pub(crate) async fn lock(
    transaction: &mut Transaction<'_, Postgres>,
    partitions: impl Iterator<Item = u32>,
    lock: &'static str,
    create: &'static str,
) -> Result<HashMap<u32, Option<u64>>, Error> {
    let partitions: Vec<i32> = partitions.map(u32::cast_signed).collect();
    loop {
        let rows: Vec<(i32, Option<i64>)> =
            sqlx::query_as(lock).bind(&partitions).fetch_all(&mut **transaction).await?;
        if rows.len() >= partitions.len() {
            let row = |(partition, position): (i32, Option<i64>)| {
                (partition.cast_unsigned(), position.map(i64::cast_unsigned))
            };
            return Ok(rows.into_iter().map(row).collect());
        }
        sqlx::query(create).bind(&partitions).execute(&mut **transaction).await?;
    }
}
