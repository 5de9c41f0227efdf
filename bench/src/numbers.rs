//! Percentiles, and the line that `bench/lib.sh` reads.

use std::time::Duration;

/// The percentile by nearest rank. Sorts the values; zero without values.
pub(crate) fn percentile<T: Ord + Copy + Default>(values: &mut [T], share: f64) -> T {
    values.sort_unstable();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
    let rank = (values.len() as f64 * share).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied().unwrap_or_default()
}

/// Milliseconds with two decimals.
pub(crate) fn ms(span: Duration) -> String {
    format!("{:.2}", span.as_secs_f64() * 1e3)
}

/// The line that the wrk scripts print too: responses per second, responses, failures, median and 99th percentile in µs.
pub(crate) fn bench_line(took: &mut [Duration], failed: usize, lasted: Duration) -> String {
    let rate = took.len() as f64 / lasted.as_secs_f64();
    let (p50, p99) = (percentile(took, 0.5).as_micros(), percentile(took, 0.99).as_micros());
    format!("BENCH {rate:.0} {} {failed} {p50} {p99}", took.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_percentiles_by_nearest_rank() {
        let mut values: Vec<u32> = (1..=100).rev().collect();
        assert_eq!(percentile(&mut values, 0.5), 50);
        assert_eq!(percentile(&mut values, 0.99), 99);
        assert_eq!(percentile(&mut values, 1.0), 100);
        assert_eq!(percentile(&mut values, 0.0), 1);
        assert_eq!(percentile(&mut [7], 0.99), 7);
        assert_eq!(percentile::<u32>(&mut [], 0.5), 0);
        assert_eq!(percentile(&mut [3, 1, 2], 0.34), 2);
    }

    #[test]
    fn writes_the_line_that_the_script_reads() {
        let mut took = [3, 1, 2].map(Duration::from_millis);
        assert_eq!(bench_line(&mut took, 1, Duration::from_secs(2)), "BENCH 2 3 1 2000 3000");
    }
}
