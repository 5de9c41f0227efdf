//! The transactions of a restore, which runs beside the steps of the worker that it is for.

use std::sync::mpsc;

use tokio_util::sync::CancellationToken;

use super::member::Member;
use super::transaction::{TransactionError, TransactionalProducer};
use crate::LogError;

/// Work for the worker's thread. An error ends the worker: its producer is lost.
pub(super) type Request = Box<dyn FnOnce(&Member, &mut TransactionalProducer) -> Result<(), LogError> + Send>;

/// A worker as its restores use it: they have its transactional id, and one transaction is open at a time.
#[derive(Clone)]
pub(super) struct Owner {
    requests: mpsc::Sender<Request>,
    /// The worker's transactional id.
    pub(super) id: String,
}

impl Owner {
    /// The owner, and the requests of its restores.
    pub(super) fn new(id: &str) -> (Self, mpsc::Receiver<Request>) {
        let (requests, received) = mpsc::channel();
        (Self { requests, id: id.to_owned() }, received)
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
