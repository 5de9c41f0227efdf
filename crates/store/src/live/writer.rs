//! Writes: one script call per partition, all in one round trip.

use millrace_contracts::{HourlyCount, ProjectionPosition, ProjectionWrite, StoreError, WriteOutcome};
use std::collections::HashSet;
use std::sync::{Arc, LazyLock, PoisonError};

use redis::aio::ConnectionManager;
use redis::{Cmd, RedisResult};
use uuid::Uuid;

use super::Inner;
use super::error::classify;
use super::keys::value;
use super::script::CachedScript;
use crate::HourlyStore;

static WRITE: LazyLock<CachedScript> = LazyLock::new(|| CachedScript::new(include_str!("write.lua")));

/// By how much the clocks of two writers may differ, as the script has it.
const MAX_SKEW_HOURS: i64 = 1;

/// The reply of the script: whether it wrote (1 or 0), and the stored position.
type Reply = (u8, String);

/// Writes the live hours.
pub struct LiveHoursWriter {
    inner: Arc<Inner>,
    connection: ConnectionManager,
    /// Partitions whose stored position decreased: their next write starts a new incarnation.
    decreased: HashSet<u32>,
}

impl LiveHoursWriter {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        let connection = inner.connection.clone();
        Self { inner, connection, decreased: HashSet::new() }
    }

    fn call(&self, write: &ProjectionWrite<'_, [HourlyCount]>) -> Cmd {
        let (window, keys) = (&self.inner.window, &self.inner.keys);
        let live = || write.items.iter().filter(|count| window.retains(count.hour));
        let mint = write.expected.is_none() || self.decreased.contains(&write.partition);
        let minted = if mint { Uuid::new_v4().simple().to_string() } else { String::new() };

        let mut call = WRITE.call(1 + live().count() + write.items.len());
        call.arg(keys.position(write.partition));
        for count in live() {
            call.arg(keys.hour(write.partition, count.hour));
        }
        for count in write.items {
            call.arg(keys.older(write.partition, count.hour));
        }
        call.arg(write.expected.map(|position| position.to_string()).unwrap_or_default()).arg(write.next);
        call.arg(minted).arg(u8::from(write.caught_up)).arg(window.hours());
        call.arg(write.last_record.map(|identity| format!("{}:{identity}", write.next)).unwrap_or_default());
        call.arg(window.first_retained().index());
        call.arg(write.counted.map(|at| format!("{}:{}", at.next_offset, at.log_time_ms)).unwrap_or_default());
        for count in live() {
            call.arg(value(count)).arg(window.expires_ms(count.hour, self.inner.margin_ms));
        }
        // For live hours too: by another process's clock, such an hour may be an older one that was refilled.
        for count in write.items {
            call.arg(value(count)).arg("");
        }
        call
    }

    /// Records the stored position of a partition. One below the confirmed position starts a new incarnation.
    fn observe(&mut self, partition: u32, position: Option<u64>) {
        let mut written = self.inner.written.lock().unwrap_or_else(PoisonError::into_inner);
        match (written.get(&partition), position) {
            (Some(&confirmed), Some(position)) if position < confirmed => {
                self.decreased.insert(partition);
            }
            (_, Some(position)) => {
                written.insert(partition, position);
            }
            (_, None) => {
                written.remove(&partition);
                self.decreased.remove(&partition);
            }
        }
    }

    fn confirm(&mut self, partition: u32, position: u64) {
        self.decreased.remove(&partition);
        self.inner.written.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, position);
    }
}

/// The identity of the record before a position; `None` if it is of another position, which an earlier version moved since.
fn identity_at(stored: &str, next_offset: u64) -> Option<u64> {
    let (of, identity) = stored.split_once(':')?;
    (of.parse() == Ok(next_offset)).then(|| identity.parse().ok())?
}

impl HourlyStore for LiveHoursWriter {
    async fn position(&mut self, partition: u32) -> Result<Option<ProjectionPosition>, StoreError> {
        self.inner.check().await?;
        let key = self.inner.keys.position(partition);
        let mut call = redis::cmd("HMGET");
        call.arg(&key).arg("position").arg("hours").arg("last_record").arg("written_from");
        let (position, hours, last_record, written_from): (Option<u64>, Option<u32>, Option<String>, Option<i64>) =
            call.query_async(&mut self.connection).await.map_err(classify)?;
        // A narrower window lacks hours, and so does a writer with a fast clock: such a partition counts as empty here and
        // in the script.
        let window = &self.inner.window;
        let is_wide = hours.is_some_and(|hours| hours >= window.hours());
        let latest = window.first_retained().plus(MAX_SKEW_HOURS).index();
        let position = position.filter(|_| is_wide && written_from.is_none_or(|from| from <= latest));
        self.observe(partition, position);
        Ok(position.map(|next_offset| ProjectionPosition {
            next_offset,
            last_record: last_record.and_then(|stored| identity_at(&stored, next_offset)),
        }))
    }

    async fn write(&mut self, writes: &[ProjectionWrite<'_, [HourlyCount]>]) -> Result<Vec<WriteOutcome>, StoreError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        self.inner.check().await?;
        let calls: Vec<Cmd> = writes.iter().map(|write| self.call(write)).collect();
        let replies: Vec<RedisResult<Reply>> = WRITE.run(&mut self.connection, &calls).await?;
        let mut results = Vec::with_capacity(writes.len());
        let mut failed = None;
        for (write, reply) in writes.iter().zip(replies) {
            match reply {
                Ok((1, _)) => {
                    self.confirm(write.partition, write.next);
                    results.push(WriteOutcome::Applied);
                }
                Ok((_, stored)) => {
                    let stored = stored.parse().ok();
                    self.observe(write.partition, stored);
                    results.push(WriteOutcome::PositionMismatch(stored));
                }
                Err(error) => failed = Some(classify(error)),
            }
        }
        // A retry finds the partitions that were written at their new position.
        failed.map_or(Ok(results), Err)
    }
}
