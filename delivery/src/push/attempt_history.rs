//! How the last attempts at an endpoint ended, in little memory: a coordinator has many endpoints.

use std::collections::VecDeque;

use millrace_contracts::topics::RecentAttempts;

/// Attempts that are summed up: enough for a 99th percentile.
const MAX_ATTEMPTS: usize = 100;
/// The bit of a failure; the others are the latency in ms.
const FAILED: u32 = 1 << 31;

/// Latency and outcome of the last attempts, the oldest first.
#[derive(Debug, Default)]
pub(super) struct AttemptHistory(VecDeque<u32>);

impl AttemptHistory {
    pub(super) fn push(&mut self, latency_ms: u64, succeeded: bool) {
        if self.0.len() == MAX_ATTEMPTS {
            self.0.pop_front();
        }
        let latency_ms = u32::try_from(latency_ms).unwrap_or(u32::MAX) & !FAILED;
        self.0.push_back(if succeeded { latency_ms } else { latency_ms | FAILED });
    }

    /// `None` before the first attempt.
    pub(super) fn summary(&self) -> Option<RecentAttempts> {
        let mut latencies: Vec<u32> = self.0.iter().map(|attempt| attempt & !FAILED).collect();
        latencies.sort_unstable();
        // The nearest rank: of a hundred the 99th, of fewer the last.
        let p99_ms = *latencies.get((latencies.len() * 99).div_ceil(100).checked_sub(1)?)?;
        let succeeded = self.0.iter().filter(|attempt| *attempt & FAILED == 0).count();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Some(RecentAttempts { total: count(latencies.len()), succeeded: count(succeeded), p99_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_hundred_are_summed_up() {
        let mut recent = AttemptHistory::default();
        assert_eq!(recent.summary(), None);
        recent.push(7, false);
        assert_eq!(recent.summary(), Some(RecentAttempts { total: 1, succeeded: 0, p99_ms: 7 }));
        for latency in 1..=100 {
            recent.push(latency, latency % 4 != 0);
        }
        assert_eq!(recent.summary(), Some(RecentAttempts { total: 100, succeeded: 75, p99_ms: 99 }));
        recent.push(u64::MAX, true);
        assert_eq!(recent.summary().map(|recent| (recent.total, recent.p99_ms)), Some((100, 100)));
    }
}
