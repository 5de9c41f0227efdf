//! Which hours are live, and when a key may go.

use std::ops::Range;

use millrace_contracts::Hour;

use crate::Clock;

/// The current hour and the `hours` before it, by a clock.
#[derive(Debug, Clone)]
pub struct Window {
    hours: u32,
    clock: Clock,
}

impl Window {
    /// A window of this many hours before the current one.
    pub fn new(hours: u32, clock: Clock) -> Self {
        Self { hours, clock }
    }

    /// How many hours before the current one.
    pub fn hours(&self) -> u32 {
        self.hours
    }

    /// Whether an hour is answered for. Those ahead of the clock are: events may be a few minutes early.
    pub fn covers(&self, hour: Hour) -> bool {
        hour >= self.first() && hour <= Hour::MAX
    }

    /// From the first hour that is answered for to the one after the current: events may be early.
    pub(super) fn live(&self) -> Range<Hour> {
        self.first()..self.clock.hour().plus(2)
    }

    /// Whether an hour is still written: one more than is answered for, so that a reader whose clock is behind finds what it
    /// asks for.
    pub(super) fn keeps(&self, hour: Hour) -> bool {
        hour >= self.first().plus(-1) && hour <= Hour::MAX
    }

    /// When an hour's key expires, ms since the epoch: when the window has passed it, and a margin.
    pub(super) fn expires_ms(&self, hour: Hour, margin_ms: u64) -> u64 {
        let leaves = hour.plus(i64::from(self.hours)).end_ms();
        u64::try_from(leaves).unwrap_or(0).saturating_add(margin_ms)
    }

    fn first(&self) -> Hour {
        self.clock.hour().plus(-i64::from(self.hours))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_is_live_until_the_window_has_passed_it() {
        let at = |now_ms| Window::new(24, Clock::of(move || now_ms));
        let hour: Hour = "2026-11-20T08Z".parse().unwrap();
        let leaves = Hour::from_index(hour.index() + 25).start_ms();
        assert!(at(leaves - 1).covers(hour));
        assert!(!at(leaves).covers(hour), "25 hours later it is the archive's");
        assert!(at(leaves).keeps(hour), "but a reader with a slow clock still finds it");
        assert!(!at(leaves + 3_600_000).keeps(hour));
        assert!(at(hour.start_ms() - 1).covers(hour), "events may be early");
        let expires = at(0).expires_ms(hour, 5);
        assert_eq!(expires, u64::try_from(leaves).unwrap() + 5, "never inside the window");
        assert!(!at(leaves).covers(Hour::MAX.plus(1)));
    }
}
