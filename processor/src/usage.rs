//! Memory of the users of all partitions in this process, and the gauges that report it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use metrics::{Gauge, gauge};
use millrace_contracts::metric;

use crate::users::{Set, Users};

const FORMS: [&str; 3] = ["memory", "disk", "sketch"];

/// The totals over all partitions of the process. The gauges follow every change, so they are correct while nothing is
/// counted: after a restore, and after a rebalance took partitions away.
#[derive(Debug)]
pub(crate) struct ProcessUsage {
    bytes: AtomicI64,
    memory: Gauge,
    hours: [Gauge; FORMS.len()],
    ids: Gauge,
}

impl Default for ProcessUsage {
    fn default() -> Self {
        Self {
            bytes: AtomicI64::new(0),
            memory: gauge!(metric::USERS_MEMORY.name),
            hours: FORMS.map(|form| gauge!(metric::HOURS.name, "form" => form)),
            ids: gauge!(metric::EVENT_IDS.name),
        }
    }
}

impl ProcessUsage {
    fn add(&self, form: usize, bytes: i64, hours: i64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if bytes != 0 {
            self.memory.increment(bytes as f64);
        }
        if hours != 0 {
            self.hours[form].increment(hours as f64);
        }
    }
}

/// One partition's share of [`ProcessUsage`]. Drop subtracts it.
#[derive(Debug)]
pub(crate) struct PartitionUsage {
    process: Arc<ProcessUsage>,
    bytes: i64,
    hours: [i64; FORMS.len()],
    ids: i64,
}

/// The last report of one hour: its bytes and the index of its form.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct HourUsage(Option<(i64, usize)>);

impl PartitionUsage {
    pub(crate) fn new(process: Arc<ProcessUsage>) -> Self {
        Self { process, bytes: 0, hours: [0; FORMS.len()], ids: 0 }
    }

    /// Bytes of memory of the whole process.
    pub(crate) fn process_bytes(&self) -> u64 {
        self.process.bytes.load(Ordering::Relaxed).max(0).cast_unsigned()
    }

    /// Replaces the last report of an hour by its present size and form.
    pub(crate) fn report(&mut self, last: &mut HourUsage, users: &Users) {
        let bytes = i64::try_from(users.memory()).unwrap_or(i64::MAX);
        let form = match users {
            Users::Set(Set { run: None, .. }) => 0,
            Users::Set(Set { run: Some(_), .. }) => 1,
            Users::Sketch(_) => 2,
        };
        if last.0 == Some((bytes, form)) {
            return;
        }
        if let Some((bytes, form)) = last.0.replace((bytes, form)) {
            self.add(form, -bytes, -1);
        }
        self.add(form, bytes, 1);
    }

    fn add(&mut self, form: usize, bytes: i64, hours: i64) {
        self.bytes += bytes;
        self.hours[form] += hours;
        self.process.add(form, bytes, hours);
    }

    /// Replaces the last report of the number of event ids.
    pub(crate) fn report_ids(&mut self, ids: usize) {
        let ids = i64::try_from(ids).unwrap_or(i64::MAX);
        self.process.ids.increment((ids - std::mem::replace(&mut self.ids, ids)) as f64);
    }
}

impl Drop for PartitionUsage {
    fn drop(&mut self) {
        self.process.add(0, -self.bytes, 0);
        for (form, hours) in self.hours.into_iter().enumerate() {
            self.process.add(form, 0, -hours);
        }
        self.process.ids.decrement(self.ids as f64);
    }
}
