//! What threads wait for: new ends of partitions, and the end of the log.

use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

const HELD: &str = "nothing panics while it holds this";

/// Counts how often ends of partitions moved.
#[derive(Default)]
pub(super) struct Ends {
    moves: Mutex<u64>,
    moved: Condvar,
}

impl Ends {
    pub(super) fn notify(&self) {
        *self.moves.lock().expect(HELD) += 1;
        self.moved.notify_all();
    }

    /// To be asked before the ends are looked at.
    pub(super) fn seen(&self) -> u64 {
        *self.moves.lock().expect(HELD)
    }

    /// Waits until ends have moved since `seen`; false when the deadline came first.
    pub(super) fn wait(&self, seen: u64, deadline: Instant) -> bool {
        let moves = self.moves.lock().expect(HELD);
        let left = deadline.saturating_duration_since(Instant::now());
        let (_moves, waited) = self.moved.wait_timeout_while(moves, left, |moves| *moves == seen).expect(HELD);
        !waited.timed_out()
    }
}

/// The end of the log: begun, then finished.
#[derive(Default)]
pub(super) struct Closing {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    begun: bool,
    finished: bool,
}

impl Closing {
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
        !waited.expect(HELD).1.timed_out()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect(HELD)
    }
}
