//! A token bucket that can be overdrawn.
//!
//! What a request costs is known only after its admission: the events of a batch once its body is read. So whoever finds one
//! unit in the bucket is admitted and takes what it costs, and nobody is admitted until that is paid off. A limiter that
//! refuses what exceeds one burst would never admit a batch larger than that.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The units of this time fit into a bucket, in ns.
const CAPACITY: u64 = 1_000_000_000;
/// The longest time to pay off what was taken, in ns: a batch that is far too large for its rate locks nobody out for longer.
const MAX_DEBT: u64 = 600 * CAPACITY;

/// A bucket, full at first, as the time at which it is full again: ns on the clock of its callers.
#[derive(Debug, Default)]
pub(in super::super) struct Bucket(AtomicU64);

impl Bucket {
    /// How long it takes until the bucket has a unit; zero if it has one.
    pub(super) fn wait(&self, rate: NonZeroU64, now: u64) -> Duration {
        Duration::from_nanos(shortage(self.0.load(Ordering::Relaxed), rate, now))
    }

    /// Takes a unit if the bucket has one.
    ///
    /// # Errors
    /// How long it takes until it has one.
    pub(in super::super) fn try_take(&self, rate: NonZeroU64, now: u64) -> Result<(), Duration> {
        let take =
            |full_at| (shortage(full_at, rate, now) == 0).then(|| full_at.max(now).saturating_add(cost(1, rate)));
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(drop).map_err(|full_at| Duration::from_nanos(shortage(full_at, rate, now)))
    }

    /// Takes units, whether or not the bucket has them.
    pub(super) fn take(&self, rate: NonZeroU64, units: u64, now: u64) {
        let cost = cost(units, rate);
        let take = |full_at: u64| full_at.max(now).saturating_add(cost).min(now.saturating_add(MAX_DEBT));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full_at| Some(take(full_at)));
    }

    /// The units in the bucket.
    pub(super) fn available(&self, rate: NonZeroU64, now: u64) -> u64 {
        let left = CAPACITY.saturating_sub(self.0.load(Ordering::Relaxed).saturating_sub(now));
        let units = u128::from(left) * u128::from(rate.get()) / u128::from(CAPACITY);
        u64::try_from(units).unwrap_or(u64::MAX)
    }

    /// Whether nothing is missing.
    pub(super) fn is_full(&self, now: u64) -> bool {
        self.0.load(Ordering::Relaxed) <= now
    }
}

/// The time that pays for units, in ns.
fn cost(units: u64, rate: NonZeroU64) -> u64 {
    let ns = u128::from(units) * u128::from(CAPACITY) / u128::from(rate.get());
    u64::try_from(ns).unwrap_or(u64::MAX)
}

/// The time until a bucket that is full at this time has a unit, in ns.
fn shortage(full_at: u64, rate: NonZeroU64, now: u64) -> u64 {
    full_at.saturating_sub(now).saturating_add(cost(1, rate)).saturating_sub(CAPACITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = CAPACITY;

    fn rate(rate: u64) -> NonZeroU64 {
        NonZeroU64::new(rate).unwrap()
    }

    /// How many units are there at once.
    fn burst(bucket: &Bucket, rate: NonZeroU64, now: u64) -> usize {
        std::iter::repeat_with(|| bucket.try_take(rate, now)).take_while(Result::is_ok).count()
    }

    #[test]
    fn admits_a_burst_of_one_second_and_then_the_rate() {
        for units in [1, 2, 3, 7, 1_000, 9_999] {
            let (bucket, rate) = (Bucket::default(), rate(units));
            assert_eq!(bucket.available(rate, 5), units);
            assert_eq!(burst(&bucket, rate, 5), usize::try_from(units).unwrap());
            assert_eq!(bucket.available(rate, 5), 0);
            let wait = bucket.try_take(rate, 5).unwrap_err();
            assert_eq!(wait, bucket.wait(rate, 5));
            let next = 5 + u64::try_from(wait.as_nanos()).unwrap();
            assert!(bucket.try_take(rate, next - 1).is_err() && bucket.try_take(rate, next).is_ok(), "{units}");
            assert_eq!(burst(&bucket, rate, next + 10 * SECOND), usize::try_from(units).unwrap(), "it holds no more");
        }
    }

    #[test]
    fn what_was_taken_beyond_the_bucket_is_paid_off_before_the_next() {
        let (bucket, rate) = (Bucket::default(), rate(10));
        bucket.take(rate, 35, 0);
        // 25 units short, and one that must be there.
        assert_eq!(bucket.wait(rate, 0), Duration::from_millis(2_600));
        assert!(bucket.try_take(rate, 2_599_999_999).is_err());
        assert!(bucket.try_take(rate, 2_600_000_000).is_ok());
        assert!(!bucket.is_full(3_599_999_999) && bucket.is_full(3_600_000_000));
    }

    #[test]
    fn debt_is_bounded() {
        let bucket = Bucket::default();
        bucket.take(rate(1), u64::MAX, 7);
        bucket.take(rate(1), u64::MAX, 7);
        assert_eq!(bucket.wait(rate(1), 7), Duration::from_mins(10));
        assert_eq!(bucket.available(rate(1), 7), 0);
    }
}
