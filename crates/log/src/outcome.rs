//! The outcome of an append: acknowledged, refused or unknown.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures::task::AtomicWaker;

use crate::metric::APPENDS;

/// The outcome of one append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The record is in the log at this offset, as durable as configured.
    Acknowledged(u64),
    /// The record was never enqueued and is not in the log: safe to append again.
    Refused(RefusalCause),
    /// A timeout, a lost connection or a failed sync: the record may or may not be in the log.
    Unknown,
}

/// The reason why a record was never enqueued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCause {
    /// The bounded queue to the log is full.
    Full,
    /// The record is larger than the maximum.
    TooLarge,
    /// The log is shutting down.
    ShuttingDown,
    /// No broker is reachable, or the log's writer has failed.
    Unavailable,
    /// The disk has less free space than the minimum.
    DiskFull,
}

const CAUSES: [RefusalCause; 5] = [
    RefusalCause::Full,
    RefusalCause::TooLarge,
    RefusalCause::ShuttingDown,
    RefusalCause::Unavailable,
    RefusalCause::DiskFull,
];

// An outcome in one word: offsets are below 2^63, refusals count down from the maximum, unknown is the maximum.
const UNKNOWN: u64 = u64::MAX;

impl Outcome {
    fn pack(self) -> u64 {
        match self {
            Self::Acknowledged(offset) => offset,
            Self::Refused(cause) => UNKNOWN - 1 - cause as u64,
            Self::Unknown => UNKNOWN,
        }
    }

    fn unpack(word: u64) -> Self {
        match usize::try_from(UNKNOWN - word) {
            Ok(0) => Self::Unknown,
            Ok(n) if n <= CAUSES.len() => Self::Refused(CAUSES[n - 1]),
            _ => Self::Acknowledged(word),
        }
    }
}

/// The outcomes of one call of [`Log::append`](crate::Log::append), in the order of its records. Resolves with the last
/// of them, within the engine's timeout for a record.
#[derive(Debug)]
#[must_use = "only the outcome shows whether a record is in the log"]
pub struct Receipts(Arc<Slots>);

#[derive(Debug)]
struct Slots {
    words: Box<[AtomicU64]>,
    pending: AtomicUsize,
    waker: AtomicWaker,
}

/// The obligation to report the outcome of one record. Dropped unresolved, the outcome is unknown.
#[derive(Debug)]
pub(crate) struct Ticket {
    slots: Arc<Slots>,
    index: usize,
}

impl Receipts {
    /// Receipts for `records` appends, and a ticket for each, in order.
    pub(crate) fn new(records: usize) -> (Self, impl Iterator<Item = Ticket>) {
        let words = (0..records).map(|_| AtomicU64::new(UNKNOWN)).collect();
        let slots = Arc::new(Slots { words, pending: AtomicUsize::new(records), waker: AtomicWaker::new() });
        let tickets = slots.clone();
        (Self(slots), (0..records).map(move |index| Ticket { slots: tickets.clone(), index }))
    }

    /// The number of records.
    pub(crate) fn len(&self) -> usize {
        self.0.words.len()
    }

    /// The cause if the record with this index was refused so far. A refusal to enqueue it is visible as soon as
    /// [`Log::append`](crate::Log::append) has returned.
    pub fn refused(&self, index: usize) -> Option<RefusalCause> {
        match Outcome::unpack(self.0.words.get(index)?.load(Ordering::Relaxed)) {
            Outcome::Refused(cause) => Some(cause),
            _ => None,
        }
    }
}

impl Future for Receipts {
    type Output = Vec<Outcome>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Vec<Outcome>> {
        self.0.waker.register(cx.waker());
        if self.0.pending.load(Ordering::Acquire) > 0 {
            return Poll::Pending;
        }
        Poll::Ready(self.0.words.iter().map(|word| Outcome::unpack(word.load(Ordering::Relaxed))).collect())
    }
}

impl Ticket {
    /// Reports the outcome of the record.
    pub(crate) fn resolve(self, outcome: Outcome) {
        self.slots.words[self.index].store(outcome.pack(), Ordering::Relaxed);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.slots.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            APPENDS.count(self.slots.words.iter().map(|word| Outcome::unpack(word.load(Ordering::Relaxed))));
            self.slots.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_packs_into_a_word() {
        let refused = CAUSES.map(Outcome::Refused);
        for outcome in
            refused.into_iter().chain([Outcome::Acknowledged(0), Outcome::Acknowledged(1 << 62), Outcome::Unknown])
        {
            assert_eq!(Outcome::unpack(outcome.pack()), outcome);
        }
    }

    #[tokio::test]
    async fn a_dropped_ticket_resolves_as_unknown() {
        let (receipts, tickets) = Receipts::new(3);
        let mut tickets = tickets.collect::<Vec<_>>().into_iter();
        tickets.next().unwrap().resolve(Outcome::Acknowledged(7));
        let last = tickets.next_back().unwrap();
        drop(tickets);
        assert_eq!((0..4).map(|index| receipts.refused(index)).collect::<Vec<_>>(), [None; 4]);
        let waiting = tokio::spawn(receipts);
        last.resolve(Outcome::Refused(RefusalCause::Full));
        let got = waiting.await.unwrap();
        assert_eq!(got, [Outcome::Acknowledged(7), Outcome::Unknown, Outcome::Refused(RefusalCause::Full)]);
    }
}
