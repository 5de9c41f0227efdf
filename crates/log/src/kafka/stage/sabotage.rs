//! Transactions with one guard disabled, for tests that prove that another check notices (feature `failpoints` only).

use super::{Purpose, TransactionError, Worker, produce};
use crate::metric::Abort;
use crate::{Failure, Stage, fault};

impl<S: Stage> Worker<'_, S> {
    /// Commits the step as `transact` must not, if a test disables one of its guards; `None` if none is disabled.
    pub(super) fn sabotaged_transact(&mut self, next: &[(u32, u64)]) -> Option<Result<(), TransactionError>> {
        if fault::sabotaged("sabotage::offset-before-state") {
            return Some(self.offsets_before_state(next));
        }
        fault::sabotaged("sabotage::produce-after-offsets").then(|| self.produce_after_offsets(next))
    }

    /// Guard: outputs, changes and input offsets commit together. Here the offsets commit first.
    fn offsets_before_state(&mut self, next: &[(u32, u64)]) -> Result<(), TransactionError> {
        let offsets = self.member.offsets(next.iter().copied());
        // Not a step, so that its fail points fire in the second transaction only.
        let transaction = self.producer.begin(Purpose::Restore)?;
        match transaction.offsets(self.member.group_metadata(), &offsets) {
            Ok(()) => transaction.commit()?,
            Err(error) => return Err(transaction.failed(Abort::Offsets, error)),
        }
        let transaction = self.producer.begin(Purpose::Step)?;
        match produce(self.log, &transaction, self.step.records()).and_then(|()| transaction.drain()) {
            Ok(()) => {
                fault::point("kafka::stage::drained");
                transaction.commit()
            }
            Err(error) => Err(transaction.failed(Abort::Records, error)),
        }
    }

    /// Guard: no record is produced after the offsets. Here the first record is.
    fn produce_after_offsets(&mut self, next: &[(u32, u64)]) -> Result<(), TransactionError> {
        let transaction = self.producer.begin(Purpose::Step)?;
        let prepared = produce(self.log, &transaction, self.step.records().skip(1))
            .and_then(|()| transaction.drain())
            .map_err(|error| (Abort::Records, error))
            .and_then(|()| {
                let offsets = self.member.offsets(next.iter().copied());
                transaction.offsets(self.member.group_metadata(), &offsets).map_err(|error| (Abort::Offsets, error))
            });
        if let Err((operation, error)) = prepared {
            return Err(transaction.failed(operation, error));
        }
        // A stall between the offsets and the late record.
        fault::point("kafka::stage::offsets_sent");
        produce(self.log, &transaction, self.step.records().take(1)).map_err(|error| {
            TransactionError::Aborted(Abort::Records, Failure::new(error.to_string()).because(error))
        })?;
        transaction.commit()
    }
}
