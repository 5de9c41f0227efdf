//! Numbers the frames of a connection, so that the log's reader notices a missing one.

use std::time::{Duration, Instant};

/// A series that is older ends when nothing is under way: what is remembered of it may expire.
const MAX_AGE: Duration = Duration::from_mins(10);

/// A series of frames: each was appended right behind the one before.
#[derive(Debug)]
pub(crate) struct FrameSeries {
    nonce: u64,
    next_index: u64,
    began: Instant,
    /// Failures of the session that the series knows of.
    failures: u64,
}

impl FrameSeries {
    pub(crate) fn new() -> Self {
        Self { nonce: fastrand::u64(..), next_index: 0, began: Instant::now(), failures: 0 }
    }

    /// A frame did not get in: those behind it do not continue the series.
    pub(crate) fn end(&mut self) {
        *self = Self { failures: self.failures, ..Self::new() };
    }

    /// The nonce, and the index of the first of `frames` new ones.
    pub(crate) fn number(&mut self, frames: usize, failures: u64, under_way: bool) -> (u64, u64) {
        if failures != self.failures || (!under_way && self.began.elapsed() > MAX_AGE) {
            self.failures = failures;
            self.end();
        }
        let first = self.next_index;
        self.next_index += frames as u64;
        (self.nonce, first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_begins_another_series() {
        let mut series = FrameSeries::new();
        let (nonce, first) = series.number(3, 0, false);
        assert_eq!((first, series.number(2, 0, true)), (0, (nonce, 3)));
        let (other, first) = series.number(1, 1, true);
        assert!(other != nonce && first == 0);
        assert_eq!(series.number(1, 1, true), (other, 1));
        series.end();
        assert_eq!(series.number(1, 1, true).1, 0);
        series.began = Instant::now().checked_sub(MAX_AGE * 2).unwrap();
        let (before, _) = series.number(1, 1, true);
        assert_ne!(series.number(1, 1, false).0, before);
    }
}
