//! The metrics of this crate: names, help texts, and the handles through which they are told, per batch or once a second.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::Outcome;

const APPENDS: &str = "millrace_append_records_total";
const WAITING_RECORDS: &str = "millrace_append_waiting_records";
const WAITING_BYTES: &str = "millrace_append_waiting_bytes";
const STEPS: &str = "millrace_stage_steps_total";
const ABORTS: &str = "millrace_stage_aborts_total";
const STEP_SECONDS: &str = "millrace_stage_step_seconds";
const COMMIT_SECONDS: &str = "millrace_stage_commit_seconds";
const LAG: &str = "millrace_lag_records";
const RESTORE_DONE: &str = "millrace_restore_offsets_done";
const RESTORE_TOTAL: &str = "millrace_restore_offsets";
const RESTORE_SECONDS: &str = "millrace_restore_seconds";

/// How often a lag is told.
const EVERY: Duration = Duration::from_secs(1);

/// Gives the recorder every name with its help text. Call once, after a recorder is installed.
pub fn describe_metrics() {
    metrics::describe_counter!(APPENDS, "Records appended, by outcome: acknowledged, refused or unknown");
    metrics::describe_gauge!(WAITING_RECORDS, "Records that wait for the log to take them or to acknowledge them");
    metrics::describe_gauge!(WAITING_BYTES, "Bytes that wait for the log to take them or to acknowledge them");
    metrics::describe_counter!(STEPS, "Steps of a stage that were committed");
    metrics::describe_counter!(ABORTS, "Steps of a stage that were aborted and repeated");
    metrics::describe_histogram!(STEP_SECONDS, "From the first record's application to the durable step, seconds");
    metrics::describe_histogram!(COMMIT_SECONDS, "The part of a step that waits for the log, seconds");
    metrics::describe_gauge!(
        LAG,
        "Offsets between what a stage or sink has made durable and the last stable offset of the partition; on Kafka \
         control records count while they are not read past"
    );
    metrics::describe_gauge!(RESTORE_DONE, "Offsets read back of the restores under way; 0 when there is none");
    metrics::describe_gauge!(RESTORE_TOTAL, "Offsets to be read back by the restores under way; 0 when there is none");
    metrics::describe_histogram!(RESTORE_SECONDS, "Time of a restore that was completed, seconds");
}

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
    acknowledged: counter!(APPENDS, "outcome" => "acknowledged"),
    refused: counter!(APPENDS, "outcome" => "refused"),
    unknown: counter!(APPENDS, "outcome" => "unknown"),
    records: gauge!(WAITING_RECORDS),
    bytes: gauge!(WAITING_BYTES),
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

/// The steps of one worker of a stage.
pub(crate) struct Steps {
    committed: Counter,
    aborted: Counter,
    whole: Histogram,
    commit: Histogram,
}

impl Steps {
    pub(crate) fn of(role: &str) -> Self {
        let role = || role.to_owned();
        Self {
            committed: counter!(STEPS, "role" => role()),
            aborted: counter!(ABORTS, "role" => role()),
            whole: histogram!(STEP_SECONDS, "role" => role()),
            commit: histogram!(COMMIT_SECONDS, "role" => role()),
        }
    }

    pub(crate) fn committed(&self, began: Instant, applied: Instant) {
        self.committed.increment(1);
        self.whole.record(began.elapsed());
        self.commit.record(applied.elapsed());
    }

    pub(crate) fn aborted(&self) {
        self.aborted.increment(1);
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
            let gauge = || gauge!(LAG, "role" => self.role.clone(), "partition" => partition.to_string());
            self.gauges.entry(partition).or_insert_with(gauge).set(lag as f64);
        }
    }
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
            done: gauge!(RESTORE_DONE, "role" => role()),
            total: gauge!(RESTORE_TOTAL, "role" => role()),
            seconds: histogram!(RESTORE_SECONDS, "role" => role()),
        }
    }
}
