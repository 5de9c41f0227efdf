//! The transactions of a restore, which runs beside the steps of the worker that it is for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use millrace_contracts::Topic;
use tokio_util::sync::CancellationToken;

use super::member::Member;
use super::transaction::{TransactionError, TransactionalProducer};
use crate::LogError;

/// The time until an id is taken over again.
const REPEAT: Duration = Duration::from_mins(15);

/// Work for the worker's thread. An error ends the worker: its producer is lost.
pub(super) type Request = Box<dyn FnOnce(&Member, &mut TransactionalProducer) -> Result<(), LogError> + Send>;

/// The transactional ids of the earlier owners of each partition, the newest last.
pub(super) type Owners = BTreeMap<u32, Vec<String>>;

/// A worker as its restores use it: they have its transactional id, and one transaction is open at a time.
#[derive(Clone)]
pub(super) struct Owner {
    requests: mpsc::Sender<Request>,
    /// The worker's transactional id.
    pub(super) id: String,
    pub(super) taken_over: TakenOver,
}

impl Owner {
    /// The owner, and the requests of its restores.
    pub(super) fn new(id: &str, taken_over: TakenOver) -> (Self, mpsc::Receiver<Request>) {
        let (requests, received) = mpsc::channel();
        (Self { requests, id: id.to_owned(), taken_over }, received)
    }

    /// Has the worker do `work` between two steps, and waits for it. Not once the restore is canceled: its partitions may
    /// have another owner then.
    pub(super) fn run<T: Send + 'static>(
        &self,
        canceled: &CancellationToken,
        work: impl FnOnce(&Member, &mut TransactionalProducer) -> Result<T, TransactionError> + Send + 'static,
    ) -> Result<T, LogError> {
        let (reply, result) = mpsc::sync_channel(1);
        let canceled = canceled.clone();
        let request = move |member: &Member, producer: &mut TransactionalProducer| {
            if canceled.is_cancelled() {
                return Ok(());
            }
            match work(member, producer) {
                Ok(value) => drop(reply.send(Ok(value))),
                Err(TransactionError::Aborted(_, failure)) => {
                    let error = LogError::unavailable(format!("restore: {failure}")).because(failure);
                    drop(reply.send(Err(error)));
                }
                Err(TransactionError::ProducerLost(error)) => {
                    drop(reply.send(Err(error.clone())));
                    return Err(error);
                }
            }
            Ok(())
        };
        let ended = || LogError::unavailable("the worker of the restore has ended");
        self.requests.send(Box::new(request)).map_err(|_| ended())?;
        result.recv().map_err(|_| ended())?
    }
}

/// The transactional ids that restores of a role took over for partitions that remain unreadable. Taking over fences a
/// worker that may be alive: the retries do it once in [`REPEAT`], so that it gets on. The workers of a run share this.
#[derive(Clone, Default)]
pub(super) struct TakenOver(Arc<Mutex<BTreeMap<TakenId, Instant>>>);

/// The name of a topic, a partition and a transactional id.
type TakenId = (&'static str, u32, String);

impl TakenOver {
    /// Whether one of these partitions has not been tried with this id.
    pub(super) fn may_help(&self, topic: Topic, partitions: &[u32], id: &str) -> bool {
        let taken = self.0.lock().expect("no holder of this lock panics");
        let at = |&partition: &u32| taken.get(&(topic.name, partition, id.to_owned()));
        partitions.iter().any(|partition| at(partition).is_none_or(|at| at.elapsed() >= REPEAT))
    }

    /// The transactions of this id in these partitions are ended.
    pub(super) fn add(&self, topic: Topic, partitions: &[u32], id: &str) {
        let mut taken = self.0.lock().expect("no holder of this lock panics");
        taken.retain(|_, at| at.elapsed() < REPEAT);
        let now = Instant::now();
        taken.extend(partitions.iter().map(|&partition| ((topic.name, partition, id.to_owned()), now)));
    }

    /// These partitions are restored.
    pub(super) fn remove(&self, partitions: &[u32]) {
        let mut taken = self.0.lock().expect("no holder of this lock panics");
        taken.retain(|(_, partition, _), _| !partitions.contains(partition));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_taken_over_once_until_the_partition_is_restored() {
        let taken = TakenOver::default();
        let may_help = |partitions: &[u32], id: &str| taken.may_help(Topic::STATE, partitions, id);
        assert!(may_help(&[1, 2], "a"));
        taken.add(Topic::STATE, &[1, 2], "a");
        assert!(!may_help(&[1, 2], "a"));
        assert!(may_help(&[1, 3], "a"));
        assert!(may_help(&[1], "b"));
        assert!(taken.may_help(Topic::EVENTS, &[1], "a"));
        taken.remove(&[1]);
        assert_eq!([1, 2].map(|partition| may_help(&[partition], "a")), [true, false]);
    }
}
