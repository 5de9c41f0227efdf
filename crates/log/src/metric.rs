//! The handles through which this crate tells its metrics, per batch or once a second. A handle that is there is a series:
//! those with known labels are there before anything is counted.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use millrace_contracts::metric;

use crate::Outcome;

/// How often a lag is told.
const EVERY: Duration = Duration::from_secs(1);

/// Outcomes of appends, and what waits for one.
pub(crate) struct Appends {
    acknowledged: Counter,
    refused: Counter,
    unknown: Counter,
    records: Gauge,
    bytes: Gauge,
}

/// Made at the first append, when the recorder is there.
pub(crate) static APPENDED: LazyLock<Appends> = LazyLock::new(|| Appends {
    acknowledged: counter!(metric::APPENDS.name, "outcome" => "acknowledged"),
    refused: counter!(metric::APPENDS.name, "outcome" => "refused"),
    unknown: counter!(metric::APPENDS.name, "outcome" => "unknown"),
    records: gauge!(metric::APPEND_QUEUE_RECORDS.name),
    bytes: gauge!(metric::APPEND_QUEUE_BYTES.name),
});

impl Appends {
    /// Counts the outcomes of one call.
    pub(crate) fn count(&self, outcomes: impl Iterator<Item = Outcome>) {
        let (mut acknowledged, mut refused, mut unknown) = (0, 0, 0);
        for outcome in outcomes {
            match outcome {
                Outcome::Acknowledged(_) => acknowledged += 1,
                Outcome::Refused(_) => refused += 1,
                Outcome::Unknown => unknown += 1,
            }
        }
        for (counter, records) in
            [(&self.acknowledged, acknowledged), (&self.refused, refused), (&self.unknown, unknown)]
        {
            if records > 0 {
                counter.increment(records);
            }
        }
    }

    pub(crate) fn waiting(&self, records: u64, bytes: u64) {
        self.records.set(records as f64);
        self.bytes.set(bytes as f64);
    }
}

/// What failed when a step did not commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abort {
    /// A record was not taken, or not delivered.
    Records,
    /// The input offsets: most often the group has moved on.
    Offsets,
    /// The commit itself.
    Commit,
    /// The write of the embedded engine.
    Write,
    /// The producer, which cannot go on: whether the step committed is known only to the log.
    Lost,
}

impl Abort {
    const ALL: [Self; 5] = [Self::Records, Self::Offsets, Self::Commit, Self::Write, Self::Lost];

    /// The word of the metric and of messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Records => "records",
            Self::Offsets => "offsets",
            Self::Commit => "commit",
            Self::Write => "write",
            Self::Lost => "lost",
        }
    }
}

/// The steps of one worker of a stage.
pub(crate) struct Steps {
    committed: Counter,
    /// In the order of [`Abort::ALL`].
    aborted: [Counter; Abort::ALL.len()],
    whole: Histogram,
    commit: Histogram,
}

impl Steps {
    pub(crate) fn of(role: &str) -> Self {
        let role = || role.to_owned();
        Self {
            committed: counter!(metric::STEPS.name, "role" => role()),
            aborted: Abort::ALL.map(|why| counter!(metric::ABORTS.name, "role" => role(), "reason" => why.as_str())),
            whole: histogram!(metric::STEP_SECONDS.name, "role" => role()),
            commit: histogram!(metric::COMMIT_SECONDS.name, "role" => role()),
        }
    }

    pub(crate) fn committed(&self, began: Instant, applied: Instant) {
        self.committed.increment(1);
        self.whole.record(began.elapsed());
        self.commit.record(applied.elapsed());
    }

    pub(crate) fn aborted(&self, why: Abort) {
        self.aborted[why as usize].increment(1);
    }
}

/// How far one worker is behind, by partition.
pub(crate) struct Lags {
    role: String,
    gauges: BTreeMap<u32, Gauge>,
    told: Instant,
}

impl Lags {
    pub(crate) fn of(role: &str) -> Self {
        Self { role: role.to_owned(), gauges: BTreeMap::new(), told: Instant::now() }
    }

    /// Tells the lags that `lags` computes, at most once a second. A partition that is no longer held has none.
    pub(crate) fn tell(&mut self, lags: impl FnOnce() -> BTreeMap<u32, u64>) {
        if self.told.elapsed() < EVERY {
            return;
        }
        self.told = Instant::now();
        let lags = lags();
        self.gauges.retain(|partition, gauge| {
            let held = lags.contains_key(partition);
            if !held {
                gauge.set(0.0);
            }
            held
        });
        for (partition, lag) in lags {
            let gauge = || gauge!(metric::LAG.name, "role" => self.role.clone(), "partition" => partition.to_string());
            self.gauges.entry(partition).or_insert_with(gauge).set(lag as f64);
        }
    }
}

/// The restarts of the workers of a role.
pub(crate) fn restarts(role: &str) -> Counter {
    counter!(metric::WORKER_RESTARTS.name, "role" => role.to_owned())
}

/// A worker that ended is behind with nothing: another one holds its partitions.
impl Drop for Lags {
    fn drop(&mut self) {
        self.gauges.values().for_each(|gauge| gauge.set(0.0));
    }
}

/// The restores of a role that are under way.
pub(crate) struct Restores {
    pub(crate) done: Gauge,
    pub(crate) total: Gauge,
    pub(crate) seconds: Histogram,
}

impl Restores {
    pub(crate) fn of(role: &str) -> Self {
        let role = || role.to_owned();
        Self {
            done: gauge!(metric::RESTORE_DONE.name, "role" => role()),
            total: gauge!(metric::RESTORE_TOTAL.name, "role" => role()),
            seconds: histogram!(metric::RESTORE_SECONDS.name, "role" => role()),
        }
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn a_partition_that_moved_away_is_not_behind() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let lag = |partition: u32| {
                let series = format!("millrace_lag_records{{role=\"r\",partition=\"{partition}\"}} ");
                recorder.handle().render().lines().find_map(|line| line.strip_prefix(&series)?.parse::<u64>().ok())
            };
            let mut lags = Lags::of("r");
            let mut tell = |held: &[(u32, u64)]| {
                lags.told = Instant::now().checked_sub(EVERY).unwrap();
                lags.tell(|| held.iter().copied().collect());
            };
            tell(&[(1, 5), (2, 7)]);
            assert_eq!([1, 2, 3].map(lag), [Some(5), Some(7), None]);
            tell(&[(2, 8)]);
            assert_eq!([1, 2].map(lag), [Some(0), Some(8)]);
            drop(lags);
            assert_eq!([1, 2].map(lag), [Some(0), Some(0)]);
        });
    }
}
