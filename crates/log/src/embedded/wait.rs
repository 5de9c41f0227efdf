//! Signals between threads: new ends of partitions, and the shutdown of the log.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

const UNPOISONED: &str = "no holder of this lock panics";

/// Signals that ends of a topic's partitions moved.
#[derive(Default)]
pub(super) struct EndSignal {
    moves: Mutex<u64>,
    moved: Condvar,
}

impl EndSignal {
    pub(super) fn notify(&self) {
        *self.moves.lock().expect(UNPOISONED) += 1;
        self.moved.notify_all();
    }

    /// The number of moves so far. Read it before the ends, then pass it to [`EndSignal::wait`].
    pub(super) fn moves(&self) -> u64 {
        *self.moves.lock().expect(UNPOISONED)
    }

    /// Waits until ends have moved since `since`; false at the deadline.
    pub(super) fn wait(&self, since: u64, deadline: Instant) -> bool {
        let moves = self.moves.lock().expect(UNPOISONED);
        let left = deadline.saturating_duration_since(Instant::now());
        let (_moves, waited) = self.moved.wait_timeout_while(moves, left, |moves| *moves == since).expect(UNPOISONED);
        !waited.timed_out()
    }
}

/// The shutdown of the log: begun, then finished.
#[derive(Default)]
pub(super) struct Shutdown {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    begun: bool,
    finished: bool,
}

impl Shutdown {
    pub(super) fn begin(&self) {
        self.state().begun = true;
        self.changed.notify_all();
    }

    pub(super) fn finish(&self) {
        self.state().finished = true;
        self.changed.notify_all();
    }

    pub(super) fn has_begun(&self) -> bool {
        self.state().begun
    }

    pub(super) fn wait_until_begun(&self, within: Duration) -> bool {
        self.wait(within, |state| state.begun)
    }

    pub(super) fn wait_until_finished(&self, within: Duration) -> bool {
        self.wait(within, |state| state.finished)
    }

    fn wait(&self, within: Duration, reached: fn(&State) -> bool) -> bool {
        let waited = self.changed.wait_timeout_while(self.state(), within, |state| !reached(state));
        !waited.expect(UNPOISONED).1.timed_out()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(UNPOISONED)
    }
}
