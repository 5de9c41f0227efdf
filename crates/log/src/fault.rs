//! Injected faults, in builds with the feature `failpoints` only; without it every function here is empty.
//!
//! The engines call [`point`] where a test may kill the process. A *guard* is a check that a guarantee rests on; a test
//! disables one by its `sabotage::` switch to prove that another check notices the loss. `arm_fail_points` arms both.

use fjall::PersistMode;
use millrace_contracts::{ProjectionWrite, StoreError};
use tokio::runtime::Handle;

use crate::{Batch, Failure, LogError, Outcome, Receipts, Sink};

/// A point at which a test may kill or delay the process.
#[inline]
pub fn point(name: &str) {
    fail::fail_point!(name);
    let _ = name;
}

/// Whether a test injects the failure, or disables the guard, of this name.
pub fn sabotaged(name: &str) -> bool {
    fail::fail_point!(name, |_| true);
    let _ = name;
    false
}

/// Fails if a test injects a failed commit at this point.
pub(crate) fn inject(name: &str) -> Result<(), Failure> {
    if sabotaged(name) { Err(Failure::new(format!("a commit failed: injected at {name}"))) } else { Ok(()) }
}

/// Guard: an append is acknowledged only by the log. Disabled, everything that was enqueued counts as acknowledged.
pub(crate) fn acknowledge_early(receipts: Receipts) -> Receipts {
    if !sabotaged("sabotage::answer-early") {
        return receipts;
    }
    let (early, tickets) = Receipts::new(receipts.len());
    for (index, ticket) in tickets.enumerate() {
        ticket.resolve(receipts.refused(index).map_or(Outcome::Acknowledged(0), Outcome::Refused));
    }
    early
}

/// Guard: a restored state must match the committed position. Disabled, one of the two is taken unchecked.
pub(crate) fn unchecked_position(committed: Option<u64>, contained: Option<u64>) -> Option<u64> {
    sabotaged("sabotage::skip-position-check").then(|| committed.or(contained).unwrap_or(0))
}

/// Guard: a sink applies a write only at the position that the runner expects. Disabled, the runner expects whatever
/// position the sink has.
pub(crate) fn expect_any_position(
    sink: &mut impl Sink,
    writes: &mut [ProjectionWrite<'_, Batch>],
) -> Result<(), StoreError> {
    if sabotaged("sabotage::skip-position-check") {
        for write in writes {
            let position = Handle::current().block_on(sink.position(write.partition))?;
            write.expected = position.map(|position| position.next_offset);
        }
    }
    Ok(())
}

/// Guard: the log has the record that a position names. Disabled, a position names none.
pub(crate) fn named_record(last_record: Option<u64>) -> Option<u64> {
    last_record.filter(|_| !sabotaged("sabotage::ignore-position-identity"))
}

/// Guard: the input position commits together with the step. Disabled, it commits first, and nothing of it is left for
/// the step.
pub(crate) fn commit_separately(
    numbers: Vec<(String, u64)>,
    commit: impl FnOnce(Vec<(String, u64)>) -> Result<(), LogError>,
) -> Result<Vec<(String, u64)>, LogError> {
    if !sabotaged("sabotage::offset-before-state") {
        return Ok(numbers);
    }
    commit(numbers).map(|()| Vec::new())
}

/// Guard: a commit of the embedded engine is synced. Disabled, it is only written.
pub(crate) fn durability() -> PersistMode {
    if sabotaged("sabotage::skip-sync") { PersistMode::Buffer } else { PersistMode::SyncData }
}

#[cfg(feature = "failpoints")]
pub use armed::arm_fail_points;

#[cfg(feature = "failpoints")]
mod armed;
