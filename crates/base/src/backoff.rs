//! Backoff: the pause before the next try doubles up to a maximum, with jitter, so that those that failed together do not
//! come back together.

use std::time::Duration;

use backon::BackoffBuilder as _;

/// The pauses of one series of tries. Endless; the caller decides when to give up.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    max: Duration,
    pauses: backon::ExponentialBackoff,
}

impl Backoff {
    /// Pauses from `first`, doubling up to `max`, each with jitter on top: between one and two times the nominal pause.
    pub fn new(first: Duration, max: Duration) -> Self {
        Self { first, max, pauses: pauses(first, max) }
    }

    /// The next pause. At most `max`.
    pub fn next_pause(&mut self) -> Duration {
        self.pauses.next().unwrap_or(self.max).min(self.max)
    }

    /// A try succeeded: the next series begins at `first` again.
    pub fn reset(&mut self) {
        self.pauses = pauses(self.first, self.max);
    }
}

fn pauses(first: Duration, max: Duration) -> backon::ExponentialBackoff {
    let builder = backon::ExponentialBuilder::new().with_min_delay(first).with_max_delay(max).without_max_times();
    builder.with_jitter().with_jitter_seed(fastrand::u64(..)).build()
}

/// A uniformly random duration in `0..max`, to spread what would otherwise happen at once.
pub fn jitter(max: Duration) -> Duration {
    max.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_maximum_and_begin_again_after_a_success() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(2));
        let mut backoff = Backoff::new(first, max);
        let series: Vec<_> = (0..10).map(|_| backoff.next_pause()).collect();
        for (n, pause) in series.iter().enumerate() {
            let nominal = (first * 2u32.pow(u32::try_from(n).unwrap())).min(max);
            assert!((nominal..=(nominal * 2).min(max)).contains(pause), "pause {n} is {pause:?}, nominal {nominal:?}");
        }
        assert_eq!(series[9], max);
        backoff.reset();
        assert!(backoff.next_pause() <= first * 2);
    }

    #[test]
    fn two_series_differ() {
        let series = || {
            let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_mins(10));
            (0..8).map(|_| backoff.next_pause()).collect::<Vec<_>>()
        };
        assert_ne!(series(), series());
    }

    #[test]
    fn jitter_stays_below_its_maximum() {
        let max = Duration::from_secs(3);
        assert!((0..1_000).all(|_| jitter(max) < max));
    }
}
