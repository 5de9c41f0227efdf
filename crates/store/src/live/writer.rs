//! Writing: one script call for each partition, all in one round trip.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, PoisonError};

use redis::aio::ConnectionManager;
use redis::{Cmd, RedisResult, Script};
use uuid::Uuid;

use super::Inner;
use super::error::{classify, is_no_script};
use super::keys::value;
use crate::{HourlyStore, HourlyWrite, StoreError, Written};

static STEP: LazyLock<(&str, Script)> = LazyLock::new(|| {
    let code = include_str!("step.lua");
    (code, Script::new(code))
});

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

    fn call(&self, write: &HourlyWrite<'_>) -> Cmd {
        let window = &self.inner.window;
        let live = || write.counts.iter().filter(|count| window.keeps(count.hour));
        let mint = write.expected.is_none() || self.went_back.contains(&write.partition);
        let minted = if mint { Uuid::new_v4().simple().to_string() } else { String::new() };

        let mut call = redis::cmd("EVALSHA");
        call.arg(STEP.1.get_hash()).arg(1 + live().count()).arg(self.inner.keys.position(write.partition));
        for count in live() {
            call.arg(self.inner.keys.hour(write.partition, count.hour));
        }
        call.arg(write.expected.map(|position| position.to_string()).unwrap_or_default()).arg(write.next);
        call.arg(minted).arg(u8::from(write.caught_up)).arg(window.hours());
        for count in live() {
            call.arg(value(count)).arg(window.expires_ms(count.hour, self.inner.margin_ms));
        }
        call
    }

    /// Runs the calls in one round trip, one result for each. The scripts of other partitions run even when one fails.
    async fn run(&mut self, calls: &[Cmd]) -> Result<Vec<RedisResult<Reply>>, StoreError> {
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        for call in calls {
            pipe.add_command(call.clone());
        }
        pipe.query_async(&mut self.connection).await.map_err(|error| classify(&error))
    }

    /// As `run`; calls that found no script are run again once it is loaded. They had done nothing.
    async fn run_loaded(&mut self, calls: &[Cmd]) -> Result<Vec<RedisResult<Reply>>, StoreError> {
        let mut replies = self.run(calls).await?;
        let unknown: Vec<usize> =
            (0..replies.len()).filter(|&i| replies[i].as_ref().is_err_and(is_no_script)).collect();
        if !unknown.is_empty() {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(STEP.0);
            let _: String = load.query_async(&mut self.connection).await.map_err(|error| classify(&error))?;
            let again: Vec<Cmd> = unknown.iter().map(|&i| calls[i].clone()).collect();
            for (i, reply) in unknown.into_iter().zip(self.run(&again).await?) {
                replies[i] = reply;
            }
        }
        Ok(replies)
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
            call.query_async(&mut self.connection).await.map_err(|error| classify(&error))?;
        // What a narrower window left out is missing: the script, too, takes such a partition as empty.
        let position = position.filter(|_| hours.is_some_and(|hours| hours >= self.inner.window.hours()));
        self.found(partition, position);
        Ok(position)
    }

    async fn write(&mut self, writes: &[HourlyWrite<'_>]) -> Result<Vec<Written>, StoreError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        self.inner.check().await?;
        let calls: Vec<Cmd> = writes.iter().map(|write| self.call(write)).collect();
        let replies = self.run_loaded(&calls).await?;
        let mut results = Vec::with_capacity(writes.len());
        let mut failed = None;
        for (write, reply) in writes.iter().zip(replies) {
            match reply {
                Ok((1, _)) => {
                    self.moved(write.partition, write.next);
                    results.push(Written::Moved);
                }
                Ok((_, stored)) => {
                    let stored = stored.parse().ok();
                    self.found(write.partition, stored);
                    results.push(Written::Elsewhere(stored));
                }
                Err(error) => failed = Some(classify(&error)),
            }
        }
        // Partitions that moved all the same are found elsewhere, exactly there, when the write is tried again.
        failed.map_or(Ok(results), Err)
    }
}
