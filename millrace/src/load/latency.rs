//! Response times: a histogram of fixed size with buckets 3 % wide; one addition per response.

use std::time::Duration;

// 32 buckets for each power of two of microseconds.
const FINE: u32 = 5;
const BUCKETS: usize = 64 << FINE;

/// A histogram of durations.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    counts: Box<[u64]>,
    max: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS].into_boxed_slice(), max: Duration::ZERO }
    }
}

impl Latencies {
    /// Records one response time.
    pub(crate) fn record(&mut self, took: Duration) {
        self.counts[bucket(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))] += 1;
        self.max = self.max.max(took);
    }

    /// Adds another histogram.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.max = self.max.max(other.max);
    }

    /// The longest time.
    pub(crate) fn max(&self) -> Duration {
        self.max
    }

    /// The quantile of a share in 0.0..=1.0; at most 3 % too high.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let total: u64 = self.counts.iter().sum();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a count of responses")]
        let rank = ((total as f64 * share).ceil() as u64).max(1);
        let mut below = 0;
        for (index, count) in self.counts.iter().enumerate() {
            below += count;
            if below >= rank {
                return Duration::from_micros(upper_edge(index)).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(micros: u64) -> usize {
    // Below 2^FINE each microsecond has a bucket of its own.
    let exponent = (micros | 1).ilog2().saturating_sub(FINE);
    let fine = usize::try_from(micros >> exponent).unwrap_or(BUCKETS);
    (((exponent as usize) << FINE) + fine).min(BUCKETS - 1)
}

fn upper_edge(index: usize) -> u64 {
    let exponent = (index >> FINE).saturating_sub(1);
    let fine = index - (exponent << FINE);
    (((fine as u64) + 1) << exponent) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_lies_in_its_bucket() {
        for micros in (0..5_000).chain([12_345, 1_000_000, 59_999_999, 3_600_000_000]) {
            let edge = upper_edge(bucket(micros));
            assert!(edge >= micros && edge - micros <= micros / 32 + 1, "{micros} {edge}");
        }
        assert_eq!(bucket(u64::MAX), bucket(u64::MAX - 1), "the last bucket is unbounded");
    }

    #[test]
    fn quantiles_are_close_and_merge() {
        let (mut even, mut odd) = (Latencies::default(), Latencies::default());
        for n in 1..=1_000_u64 {
            let half = if n % 2 == 0 { &mut even } else { &mut odd };
            half.record(Duration::from_micros(n * 10));
        }
        even.merge(&odd);
        let near = |share, micros: f64| (even.quantile(share).as_micros() as f64 / micros - 1.0).abs() < 0.04;
        assert!(near(0.5, 5_000.0) && near(0.99, 9_900.0), "{:?}", even.quantile(0.5));
        assert_eq!(even.quantile(1.0), Duration::from_millis(10));
        assert_eq!(Latencies::default().quantile(0.99), Duration::ZERO);
    }
}
