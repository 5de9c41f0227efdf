//! Reads of hours that are not kept in memory: those of the same hour at the same time share one.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millrace_contracts::Hour;
use tokio::sync::OnceCell;

use crate::current::Outcome;

type Cell = Arc<OnceCell<Arc<Outcome>>>;

/// The reads under way. As many as there are requests waiting for one, at most.
#[derive(Default)]
pub(crate) struct Flights {
    running: Mutex<HashMap<Hour, Cell>>,
}

impl Flights {
    /// The outcome of the read of `hour` that is under way, else of `read`. When the request that reads goes away, the
    /// next one that waits reads.
    pub(crate) async fn join(&self, hour: Hour, read: impl Future<Output = Outcome>) -> Arc<Outcome> {
        let cell = Arc::clone(self.lock().entry(hour).or_default());
        let seat = Seat { flights: self, hour, cell };
        let outcome = seat.cell.get_or_init(|| async { Arc::new(read.await) }).await;
        Arc::clone(outcome)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Hour, Cell>> {
        // The map is whole between any two of its calls.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request on a flight. Ends the flight when it has landed, or when nobody else is on it.
struct Seat<'a> {
    flights: &'a Flights,
    hour: Hour,
    cell: Cell,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        let mut running = self.flights.lock();
        // Two handles: this one and the map's. Others are made only under the lock.
        let over = self.cell.initialized() || Arc::strong_count(&self.cell) <= 2;
        if over && running.get(&self.hour).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell)) {
            running.remove(&self.hour);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[test]
    fn nothing_is_left_of_a_flight() {
        let flights = Flights::default();
        let hour = Hour::from_index(7);
        assert!(flights.join(hour, std::future::pending()).now_or_never().is_none());
        assert!(flights.lock().is_empty(), "its only request went away");
        {
            let mut first = Box::pin(flights.join(hour, std::future::pending()));
            assert!(first.as_mut().now_or_never().is_none());
            let mut second = Box::pin(flights.join(hour, async { Outcome::Missed(crate::Missed::Rebuilding) }));
            assert!(second.as_mut().now_or_never().is_none(), "the first reads");
            assert_eq!(flights.lock().len(), 1);
            drop(first);
            assert!(second.now_or_never().is_some(), "the second took over");
        }
        assert!(flights.lock().is_empty());
    }
}
