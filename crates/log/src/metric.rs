//! The handles of this crate's metrics, updated per batch or once a second. A handle is a series: those with fixed
//! labels exist, at 0, before the first event.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use millrace_contracts::metric;

use crate::Outcome;

/// The interval between two reports of lag.
const LAG_INTERVAL: Duration = Duration::from_secs(1);

/// The outcomes of appends, and the appends in flight.
pub(crate) struct AppendMetrics {
    acknowledged: Counter,
    refused: Counter,
    unknown: Counter,
    records: Gauge,
    bytes: Gauge,
}

/// Initialized by the first append, after the recorder is installed.
pub(crate) static APPENDS: LazyLock<AppendMetrics> = LazyLock::new(|| AppendMetrics {
    acknowledged: counter!(metric::APPENDS.name, "outcome" => "acknowledged"),
    refused: counter!(metric::APPENDS.name, "outcome" => "refused"),
    unknown: counter!(metric::APPENDS.name, "outcome" => "unknown"),
    records: gauge!(metric::APPEND_QUEUE_RECORDS.name),
    bytes: gauge!(metric::APPEND_QUEUE_BYTES.name),
});

impl AppendMetrics {
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

    /// Reports the appends in flight.
    pub(crate) fn waiting(&self, records: u64, bytes: u64) {
        self.records.set(records as f64);
        self.bytes.set(bytes as f64);
    }

    /// Reports the appends in flight of one producer of several: those of before, and of now.
    pub(crate) fn waiting_changed(&self, before: (u64, u64), now: (u64, u64)) {
        self.records.increment(now.0 as f64 - before.0 as f64);
        self.bytes.increment(now.1 as f64 - before.1 as f64);
    }
}

/// The operation that failed when a step did not commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Abort {
    /// Producing or delivering a record.
    Records,
    /// Sending the input offsets, most often because of a rebalance.
    Offsets,
    /// The commit.
    Commit,
    /// The write in the embedded engine.
    Write,
    /// The producer itself failed: only the log shows whether the step committed.
    Lost,
}

impl Abort {
    const ALL: [Self; 5] = [Self::Records, Self::Offsets, Self::Commit, Self::Write, Self::Lost];

    /// The value of the metric's label, also in messages.
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
pub(crate) struct StepMetrics {
    committed: Counter,
    /// In the order of [`Abort::ALL`].
    aborted: [Counter; Abort::ALL.len()],
    repeats: Counter,
    whole: Histogram,
    commit: Histogram,
}

impl StepMetrics {
    pub(crate) fn of(role: &str) -> Self {
        let role = || role.to_owned();
        Self {
            committed: counter!(metric::STEPS.name, "role" => role()),
            aborted: Abort::ALL.map(|why| counter!(metric::ABORTS.name, "role" => role(), "reason" => why.as_str())),
            repeats: counter!(metric::REPEATS.name, "role" => role()),
            whole: histogram!(metric::STEP_SECONDS.name, "role" => role()),
            commit: histogram!(metric::COMMIT_SECONDS.name, "role" => role()),
        }
    }

    pub(crate) fn committed(&self, began: Instant, applied: Instant) {
        self.committed.increment(1);
        self.whole.record(began.elapsed());
        self.commit.record(applied.elapsed());
    }

    /// Counts records of the input that were dropped as repeats.
    pub(crate) fn repeats(&self, records: u64) {
        if records > 0 {
            self.repeats.increment(records);
        }
    }

    pub(crate) fn aborted(&self, why: Abort) {
        self.aborted[why as usize].increment(1);
    }
}

/// The lag of one worker, by partition.
pub(crate) struct LagGauges {
    role: String,
    gauges: BTreeMap<u32, [Gauge; 2]>,
    reported: Instant,
}

/// What a partition has beyond the position of its worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lag {
    /// Offsets up to the last stable one.
    pub(crate) stable: u64,
    /// Offsets from there to the high watermark.
    pub(crate) open: u64,
}

impl LagGauges {
    pub(crate) fn of(role: &str) -> Self {
        Self { role: role.to_owned(), gauges: BTreeMap::new(), reported: Instant::now() }
    }

    /// Reports the lags that `lags` computes, at most once a second. The lag of a partition that is no longer assigned
    /// is 0.
    pub(crate) fn report(&mut self, lags: impl FnOnce() -> BTreeMap<u32, Lag>) {
        if self.reported.elapsed() < LAG_INTERVAL {
            return;
        }
        self.reported = Instant::now();
        let lags = lags();
        self.gauges.retain(|partition, gauges| {
            let assigned = lags.contains_key(partition);
            if !assigned {
                for gauge in &*gauges {
                    gauge.set(0.0);
                }
            }
            assigned
        });
        for (partition, lag) in lags {
            let gauges = || {
                [metric::LAG, metric::OPEN_RECORDS]
                    .map(|one| gauge!(one.name, "role" => self.role.clone(), "partition" => partition.to_string()))
            };
            let [stable, open] = self.gauges.entry(partition).or_insert_with(gauges);
            stable.set(lag.stable as f64);
            open.set(lag.open as f64);
        }
    }
}

/// The counter of worker restarts of a role.
pub(crate) fn restarts(role: &str) -> Counter {
    counter!(metric::WORKER_RESTARTS.name, "role" => role.to_owned())
}

/// A worker that ended has no lag: its partitions move to another.
impl Drop for LagGauges {
    fn drop(&mut self) {
        self.gauges.values().flatten().for_each(|gauge| gauge.set(0.0));
    }
}

/// The restores of a role in progress.
pub(crate) struct RestoreMetrics {
    pub(crate) done: Gauge,
    pub(crate) total: Gauge,
    pub(crate) seconds: Histogram,
}

impl RestoreMetrics {
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
    fn a_revoked_partition_has_no_lag() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            let lag = |partition: u32| {
                let series = format!("millrace_lag_records{{role=\"r\",partition=\"{partition}\"}} ");
                recorder.handle().render().lines().find_map(|line| line.strip_prefix(&series)?.parse::<u64>().ok())
            };
            let mut lags = LagGauges::of("r");
            let mut report = |lags_now: &[(u32, u64)]| {
                lags.reported = Instant::now().checked_sub(LAG_INTERVAL).unwrap();
                let lag = |&(partition, stable)| (partition, Lag { stable, open: 0 });
                lags.report(|| lags_now.iter().map(lag).collect());
            };
            report(&[(1, 5), (2, 7)]);
            assert_eq!([1, 2, 3].map(lag), [Some(5), Some(7), None]);
            report(&[(2, 8)]);
            assert_eq!([1, 2].map(lag), [Some(0), Some(8)]);
            drop(lags);
            assert_eq!([1, 2].map(lag), [Some(0), Some(0)]);
        });
    }
}
