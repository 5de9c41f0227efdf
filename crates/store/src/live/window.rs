//! The live window: its hours, and the expiry of their keys.

use std::ops::Range;

use millrace_base::Clock;
use millrace_contracts::Hour;

/// The current hour and the `hours` before it, by a clock.
#[derive(Debug, Clone)]
pub struct LiveWindow {
    hours: u32,
    clock: Clock,
}

impl LiveWindow {
    /// A window of the current hour and `hours` before it.
    pub fn new(hours: u32, clock: Clock) -> Self {
        Self { hours, clock }
    }

    /// The number of hours before the current one.
    pub fn hours(&self) -> u32 {
        self.hours
    }

    /// Whether the window contains an hour. Hours ahead of the clock count: events may be a few minutes early.
    pub fn covers(&self, hour: Hour) -> bool {
        hour >= self.first() && hour <= Hour::MAX
    }

    /// From the first hour of the window to the one after the current, since events may be early.
    pub(super) fn live(&self) -> Range<Hour> {
        self.first()..Hour::current(&self.clock).plus(2)
    }

    /// Whether writers still write an hour: one hour more than the window, so that a reader with a slow clock finds it.
    pub(super) fn retains(&self, hour: Hour) -> bool {
        hour >= self.first_retained() && hour <= Hour::MAX
    }

    /// The first hour that writers still write.
    pub(super) fn first_retained(&self) -> Hour {
        self.first().plus(-1)
    }

    /// The expiry of an hour's key, ms since the epoch: a margin after the hour leaves the window.
    pub(super) fn expires_ms(&self, hour: Hour, margin_ms: u64) -> u64 {
        let leaves = hour.plus(i64::from(self.hours)).end_ms();
        u64::try_from(leaves).unwrap_or(0).saturating_add(margin_ms)
    }

    fn first(&self) -> Hour {
        Hour::current(&self.clock).plus(-i64::from(self.hours))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_live_until_it_leaves_the_window() {
        let at = |now_ms| LiveWindow::new(24, Clock::new(move || now_ms));
        let hour: Hour = "2026-11-20T08Z".parse().unwrap();
        let leaves = Hour::from_index(hour.index() + 25).start_ms();
        assert!(at(leaves - 1).covers(hour));
        assert!(!at(leaves).covers(hour), "25 hours later only the archive has it");
        assert!(at(leaves).retains(hour), "a reader with a slow clock still finds it");
        assert!(!at(leaves + 3_600_000).retains(hour));
        assert!(at(hour.start_ms() - 1).covers(hour), "events may be early");
        let expires = at(0).expires_ms(hour, 5);
        assert_eq!(expires, u64::try_from(leaves).unwrap() + 5, "never inside the window");
        assert!(!at(leaves).covers(Hour::MAX.plus(1)));
    }
}
