//! Ends what earlier owners left open in the outputs, after a restore: nothing but the readers of the outputs waits for it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use millrace_contracts::Topic;
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio_util::sync::CancellationToken;

use super::consumer::{QuietContext, consumer};
use super::owner::Owners;
use super::restore::{Restore, SETTLE_TIMEOUT, lost};
use super::settle::REQUEST_TIMEOUT;
use super::transaction::Transaction;
use super::{KafkaLog, unavailable};
use crate::LogError;

/// Between two looks at the end of an output.
const INTERVAL: Duration = Duration::from_millis(100);

impl KafkaLog {
    /// Ends what is open in the outputs, with a commit: if it committed, its records must not be lost; if it was aborted,
    /// the same records follow again. Gives up after all earlier owners. Only in those of the partitions that are
    /// `retained` by then: taking over the owner of another one could fence a worker that has it now.
    pub(super) fn settle_outputs(
        &self,
        restore: &Restore<'_>,
        outputs: &[Topic],
        retained: &dyn Fn() -> Vec<u32>,
        owners: &Owners,
    ) -> Result<(), LogError> {
        let Restore { owner, canceled, .. } = *restore;
        let mut open = OpenOutputs::find(self, outputs, retained)?;
        if open.have_ended(self.end_timeout(), canceled)? {
            return Ok(());
        }
        let role = &restore.options.role;
        tracing::warn!(role, outputs = ?open.shown(), "a broker left outputs in an open transaction: ending it");
        let (log, own) = (self.clone(), open.partitions());
        owner.run(canceled, move |_, producer| log.marked(producer, &own, None)?.commit())?;
        let mut tried = vec![owner.id.clone()];
        while !open.have_ended(SETTLE_TIMEOUT, canceled)? {
            let Some(id) = next_owner(owners, &open.inputs(), &tried) else {
                let outputs = open.shown();
                tracing::error!(role, ?outputs, "a transaction of an unknown producer stays open: readers wait for it");
                break;
            };
            tried.push(id.to_owned());
            let Some(mut producer) = self.take_over(restore, id) else { continue };
            if !open.have_ended(Duration::ZERO, canceled)? {
                let ended = self.marked(&mut producer, &open.partitions(), None).and_then(Transaction::commit);
                ended.map_err(lost)?;
            }
        }
        Ok(())
    }
}

/// The newest earlier owner of these partitions that was not `tried`.
fn next_owner<'o>(owners: &'o Owners, partitions: &[u32], tried: &[String]) -> Option<&'o str> {
    let ids = partitions.iter().filter_map(|partition| owners.get(partition)).flat_map(|ids| ids.iter().rev());
    ids.map(String::as_str).find(|&id| !tried.iter().any(|tried| tried == id))
}

/// The partitions of outputs that have unreadable records.
struct OpenOutputs<'a> {
    /// The partitions that they are the outputs of.
    retained: &'a dyn Fn() -> Vec<u32>,
    /// Reads committed records: its end is the last stable offset.
    readable: BaseConsumer<QuietContext>,
    open: Vec<OpenOutput>,
}

struct OpenOutput {
    topic: Topic,
    full_name: String,
    partition: u32,
    /// The last partition of the topic.
    last: u32,
    /// The high watermark when it was found.
    end: u64,
}

impl<'a> OpenOutputs<'a> {
    fn find(log: &KafkaLog, outputs: &[Topic], retained: &'a dyn Fn() -> Vec<u32>) -> Result<Self, LogError> {
        let config = &log.0.config;
        let group = log.0.names.group("reader");
        let all = consumer(config.reader(&group).set("isolation.level", "read_uncommitted"))?;
        let mut open = Vec::new();
        for &topic in outputs {
            let last = log.partitions(topic) - 1;
            // The only partition of a topic takes the outputs of all.
            let numbers: BTreeSet<u32> = retained().into_iter().map(|partition| partition.min(last)).collect();
            for partition in numbers {
                let full_name = log.full_name(topic).to_owned();
                let end = end(&all, &full_name, partition)?;
                open.push(OpenOutput { topic, full_name, partition, last, end });
            }
        }
        Ok(Self { retained, readable: consumer(&config.reader(&group))?, open })
    }

    /// Whether all become readable up to where they ended, within `patience`. Forgets those that do, and those of
    /// partitions that are not retained.
    fn have_ended(&mut self, patience: Duration, canceled: &CancellationToken) -> Result<bool, LogError> {
        let began = Instant::now();
        loop {
            let (mut unread, retained) = (Vec::new(), (self.retained)());
            self.open.retain(|one| retained.iter().any(|&partition| partition.min(one.last) == one.partition));
            for one in self.open.drain(..) {
                if end(&self.readable, &one.full_name, one.partition)? < one.end {
                    unread.push(one);
                }
            }
            self.open = unread;
            if self.open.is_empty() || began.elapsed() >= patience {
                return Ok(self.open.is_empty());
            }
            if canceled.is_cancelled() {
                return Err(LogError::unavailable("canceled"));
            }
            std::thread::sleep(INTERVAL);
        }
    }

    /// The partitions whose outputs have not ended.
    fn inputs(&self) -> Vec<u32> {
        let is_open = |partition: &u32| self.open.iter().any(|one| (*partition).min(one.last) == one.partition);
        (self.retained)().into_iter().filter(is_open).collect()
    }

    fn partitions(&self) -> Vec<(Topic, u32)> {
        self.open.iter().map(|one| (one.topic, one.partition)).collect()
    }

    fn shown(&self) -> Vec<String> {
        self.open.iter().map(|one| format!("{}/{}", one.full_name, one.partition)).collect()
    }
}

/// The end of a partition for this consumer.
fn end(consumer: &BaseConsumer<QuietContext>, topic: &str, partition: u32) -> Result<u64, LogError> {
    let bounds = consumer.fetch_watermarks(topic, partition.cast_signed(), REQUEST_TIMEOUT);
    Ok(bounds.map_err(unavailable("watermarks"))?.1.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A partition that was revoked meanwhile has another owner, which may be the earlier one.
    #[test]
    fn only_owners_of_partitions_that_are_retained_are_taken_over() {
        let ids = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>();
        let owners = Owners::from([(0, ids(&["a", "b"])), (1, ids(&["c", "b", "own"]))]);
        let next = |partitions: &[u32], tried: &[&str]| next_owner(&owners, partitions, &ids(tried));
        assert_eq!(next(&[0, 1], &["own"]), Some("b"));
        assert_eq!(next(&[0, 1], &["own", "b"]), Some("a"));
        assert_eq!(next(&[0, 1], &["own", "b", "a"]), Some("c"));
        assert_eq!(next(&[0], &["own", "b", "a"]), None, "1 was revoked");
        assert_eq!(next(&[2], &["own"]), None);
    }
}
