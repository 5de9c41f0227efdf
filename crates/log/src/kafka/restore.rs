//! Restoring a stage's state when partitions are newly held.
//!
//! The order is what makes it safe. The assignment is ours, so no earlier owner can commit offsets any more, except in a
//! transaction that already has them: `committed` waits for those. Then a marker is committed into each partition of the
//! changes; a `read_committed` reader sees it only when every transaction before it is settled. What is read up to the
//! marker is therefore the whole state, and must stand exactly at the committed offset.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use millrace_contracts::{Marker, Position, StateKey};

use super::KafkaLog;
use super::member::Member;
use super::transaction::{Failed, Transactional};
use crate::{Batch, Limits, LogError, Polled, Stage, StageError};

/// Restoring gives up when nothing arrives for this long beyond the transaction time-out.
const PATIENCE: Duration = Duration::from_secs(30);

/// A partition ready to go on.
pub(super) struct Restored<S: Stage> {
    pub(super) partition: u32,
    pub(super) state: S::State,
    pub(super) next_offset: u64,
}

struct Loading<S: Stage> {
    state: S::State,
    position: Option<u64>,
    done: bool,
}

impl KafkaLog {
    pub(super) fn restore<S: Stage>(
        &self,
        stage: &S,
        member: &Member,
        producer: &mut Transactional,
        partitions: &[u32],
    ) -> Result<Vec<Restored<S>>, LogError> {
        let began = Instant::now();
        let patience = PATIENCE + Duration::from_millis(self.0.config.transaction_timeout_ms.into());
        let committed = member.committed(partitions, patience)?;
        let nonce = uuid::Uuid::new_v4().to_string();
        self.mark(stage, producer, partitions, &nonce)?;
        let mut loaded = self.load(stage, partitions, &nonce, patience)?;
        let mut restored = Vec::with_capacity(partitions.len());
        for (&partition, committed) in partitions.iter().zip(committed) {
            let Loading { state, position, .. } = loaded.remove(&partition).expect("load answers for every partition");
            let next_offset = self.agree(stage, member, partition, committed, position)?;
            restored.push(Restored { partition, state, next_offset });
        }
        tracing::info!(?partitions, took_ms = began.elapsed().as_millis(), "state restored");
        Ok(restored)
    }

    fn mark<S: Stage>(
        &self,
        stage: &S,
        producer: &mut Transactional,
        partitions: &[u32],
        nonce: &str,
    ) -> Result<(), LogError> {
        let lost = |failed| match failed {
            Failed::Aborted(why) => LogError::Unavailable(format!("marker: {why}")),
            Failed::Lost(error) => error,
        };
        let mut value = Vec::new();
        Marker { nonce: nonce.to_owned() }.encode(&mut value);
        let transaction = producer.begin().map_err(lost)?;
        let sent = partitions.iter().try_for_each(|&partition| {
            let key = StateKey::Marker(partition).to_string();
            transaction.produce(self.full_name(stage.changes()), partition, key.as_bytes(), &value)
        });
        match sent.and_then(|()| transaction.drain()) {
            Ok(()) => transaction.commit().map_err(lost),
            Err(error) => Err(lost(transaction.failed("marker", &error))),
        }
    }

    fn load<S: Stage>(
        &self,
        stage: &S,
        partitions: &[u32],
        nonce: &str,
        patience: Duration,
    ) -> Result<BTreeMap<u32, Loading<S>>, LogError> {
        let from: Vec<(u32, u64)> = partitions.iter().map(|&partition| (partition, 0)).collect();
        let mut reader = self.reader(stage.changes(), &from)?;
        let mut loading: BTreeMap<u32, Loading<S>> = partitions
            .iter()
            .map(|&p| (p, Loading { state: stage.new_state(p), position: None, done: false }))
            .collect();
        let mut batch = Batch::default();
        let mut progress = Instant::now();
        while loading.values().any(|partition| !partition.done) {
            match reader.poll(&mut batch, Limits::default())? {
                Polled::Records => {
                    progress = Instant::now();
                    let one = loading.get_mut(&batch.partition()).expect("only what was asked for is read");
                    one.take(stage, &batch, nonce)?;
                }
                // The end is the last stable offset: short of the marker while an older transaction is open.
                Polled::CaughtUp { .. } | Polled::Nothing if progress.elapsed() < patience => {}
                Polled::CaughtUp { .. } | Polled::Nothing => {
                    let why =
                        format!("restore: nothing readable in {} for {patience:?}", self.full_name(stage.changes()));
                    return Err(LogError::Unavailable(why));
                }
            }
        }
        Ok(loading)
    }

    /// The second guard: what the state says it contains must be what the group committed with it.
    fn agree<S: Stage>(
        &self,
        stage: &S,
        member: &Member,
        partition: u32,
        committed: Option<u64>,
        position: Option<u64>,
    ) -> Result<u64, LogError> {
        let input = self.full_name(stage.input());
        match (committed, position) {
            (Some(committed), Some(position)) if committed == position => Ok(position),
            (None, None) => match member.bounds(partition)? {
                (0, _) => Ok(0),
                (start, _) => Err(LogError::Refused(format!(
                    "{input}/{partition} begins at offset {start}, and there is neither state nor a committed offset: what \
                     was there before would never be counted"
                ))),
            },
            (committed, position) => Err(LogError::Refused(format!(
                "{input}/{partition}: the group committed offset {committed:?}, but the state in {} contains {position:?}",
                self.full_name(stage.changes())
            ))),
        }
    }
}

impl<S: Stage> Loading<S> {
    fn take(&mut self, stage: &S, batch: &Batch, nonce: &str) -> Result<(), LogError> {
        for record in batch.iter() {
            // What follows the marker is not of an earlier owner: there is none left that could write.
            if self.done {
                break;
            }
            let Some(value) = record.value else { continue };
            let broken = |why: String| {
                LogError::Refused(format!("state of partition {}, offset {}: {why}", batch.partition(), record.offset))
            };
            match StateKey::parse(record.key) {
                Some(StateKey::Marker(_)) => {
                    let marker = Marker::decode(value).map_err(|error| broken(error.to_string()))?;
                    self.done = marker.nonce == nonce;
                }
                Some(StateKey::Position(_)) => {
                    let position = Position::decode(value).map_err(|error| broken(error.to_string()))?;
                    self.position = Some(position.next_offset);
                }
                _ => stage.load(&mut self.state, record.key, value).map_err(|error| match error {
                    StageError::NotOurs { .. } => broken(error.to_string()),
                    StageError::Unavailable(why) => LogError::Unavailable(why),
                })?,
            }
        }
        Ok(())
    }
}
