//! Writing: one script call for each partition, all in one round trip.

use millrace_contracts::{HourlyCount, ProjectionWrite, StoreError, WriteOutcome};
use std::collections::HashSet;
use std::sync::{Arc, LazyLock, PoisonError};

use redis::aio::ConnectionManager;
use redis::{Cmd, RedisResult};
use uuid::Uuid;

use super::Inner;
use super::error::classify;
use super::keys::value;
use super::script::Known;
use crate::HourlyStore;

static STEP: LazyLock<Known> = LazyLock::new(|| Known::new(include_str!("step.lua")));

/// What a script call answers: whether it moved, and where the partition stands.
type Reply = (u8, String);

/// Writes the live hours.
pub struct LiveHoursWriter {
    inner: Arc<Inner>,
    connection: ConnectionManager,
    /// Partitions whose stored position went back: their next write begins a new incarnation.
    went_back: HashSet<u32>,
}

impl LiveHoursWriter {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        let connection = inner.connection.clone();
        Self { inner, connection, went_back: HashSet::new() }
    }

    fn call(&self, write: &ProjectionWrite<'_, [HourlyCount]>) -> Cmd {
        let (window, keys) = (&self.inner.window, &self.inner.keys);
        let live = || write.items.iter().filter(|count| window.keeps(count.hour));
        let mint = write.expected.is_none() || self.went_back.contains(&write.partition);
        let minted = if mint { Uuid::new_v4().simple().to_string() } else { String::new() };

        let mut call = STEP.call(1 + live().count() + write.items.len());
        call.arg(keys.position(write.partition));
        for count in live() {
            call.arg(keys.hour(write.partition, count.hour));
        }
        for count in write.items {
            call.arg(keys.older(write.partition, count.hour));
        }
        call.arg(write.expected.map(|position| position.to_string()).unwrap_or_default()).arg(write.next);
        call.arg(minted).arg(u8::from(write.caught_up)).arg(window.hours());
        for count in live() {
            call.arg(value(count)).arg(window.expires_ms(count.hour, self.inner.margin_ms));
        }
        // Of every hour, live ones too: by another process's clock it may be an older one that was filled.
        for count in write.items {
            call.arg(value(count)).arg("");
        }
        call
    }

    /// Takes note of where a partition was found. Only less than what was written before is remarkable.
    fn found(&mut self, partition: u32, position: Option<u64>) {
        let mut written = self.inner.written.lock().unwrap_or_else(PoisonError::into_inner);
        match (written.get(&partition), position) {
            (Some(&known), Some(position)) if position < known => {
                self.went_back.insert(partition);
            }
            (_, Some(position)) => {
                written.insert(partition, position);
            }
            (_, None) => {
                written.remove(&partition);
                self.went_back.remove(&partition);
            }
        }
    }

    fn moved(&mut self, partition: u32, position: u64) {
        self.went_back.remove(&partition);
        self.inner.written.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, position);
    }
}

impl HourlyStore for LiveHoursWriter {
    async fn position(&mut self, partition: u32) -> Result<Option<u64>, StoreError> {
        self.inner.check().await?;
        let key = self.inner.keys.position(partition);
        let mut call = redis::cmd("HMGET");
        call.arg(&key).arg("position").arg("hours");
        let (position, hours): (Option<u64>, Option<u32>) =
            call.query_async(&mut self.connection).await.map_err(classify)?;
        // What a narrower window left out is missing: the script, too, takes such a partition as empty.
        let position = position.filter(|_| hours.is_some_and(|hours| hours >= self.inner.window.hours()));
        self.found(partition, position);
        Ok(position)
    }

    async fn write(&mut self, writes: &[ProjectionWrite<'_, [HourlyCount]>]) -> Result<Vec<WriteOutcome>, StoreError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        self.inner.check().await?;
        let calls: Vec<Cmd> = writes.iter().map(|write| self.call(write)).collect();
        let replies: Vec<RedisResult<Reply>> = STEP.run(&mut self.connection, &calls).await?;
        let mut results = Vec::with_capacity(writes.len());
        let mut failed = None;
        for (write, reply) in writes.iter().zip(replies) {
            match reply {
                Ok((1, _)) => {
                    self.moved(write.partition, write.next);
                    results.push(WriteOutcome::Applied);
                }
                Ok((_, stored)) => {
                    let stored = stored.parse().ok();
                    self.found(write.partition, stored);
                    results.push(WriteOutcome::PositionMismatch(stored));
                }
                Err(error) => failed = Some(classify(error)),
            }
        }
        // Partitions that moved all the same are found elsewhere, exactly there, when the write is tried again.
        failed.map_or(Ok(results), Err)
    }
}
