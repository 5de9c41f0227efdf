//! How much memory the users of all partitions of this process take, and in which form their hours are.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use metrics::{Gauge, gauge};
use millrace_contracts::metric;

use crate::users::{Set, Users};

const FORMS: [&str; 3] = ["memory", "disk", "sketch"];

/// What all partitions of the process hold together. The gauges follow every change, so that they are right while nothing is
/// counted: after a restore, and when partitions moved away.
#[derive(Debug)]
pub(crate) struct Shared {
    bytes: AtomicI64,
    memory: Gauge,
    hours: [Gauge; FORMS.len()],
    ids: Gauge,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            bytes: AtomicI64::new(0),
            memory: gauge!(metric::USERS_MEMORY.name),
            hours: FORMS.map(|form| gauge!(metric::HOURS.name, "form" => form)),
            ids: gauge!(metric::EVENT_IDS.name),
        }
    }
}

impl Shared {
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

/// What one partition holds of it; given back when it goes.
#[derive(Debug)]
pub(crate) struct Holdings {
    shared: Arc<Shared>,
    bytes: i64,
    hours: [i64; FORMS.len()],
    ids: i64,
}

/// What was told of one hour.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Held(Option<(i64, usize)>);

impl Holdings {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, bytes: 0, hours: [0; FORMS.len()], ids: 0 }
    }

    /// Bytes of memory of the whole process.
    pub(crate) fn of_process(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed).max(0).cast_unsigned()
    }

    /// Tells how an hour stands by now.
    pub(crate) fn tell(&mut self, held: &mut Held, users: &Users) {
        let bytes = i64::try_from(users.memory()).unwrap_or(i64::MAX);
        let form = match users {
            Users::Set(Set { run: None, .. }) => 0,
            Users::Set(Set { run: Some(_), .. }) => 1,
            Users::Sketch(_) => 2,
        };
        if held.0 == Some((bytes, form)) {
            return;
        }
        if let Some((bytes, form)) = held.0.replace((bytes, form)) {
            self.add(form, -bytes, -1);
        }
        self.add(form, bytes, 1);
    }

    fn add(&mut self, form: usize, bytes: i64, hours: i64) {
        self.bytes += bytes;
        self.hours[form] += hours;
        self.shared.add(form, bytes, hours);
    }

    /// Tells how many event ids are held by now.
    pub(crate) fn tell_ids(&mut self, ids: usize) {
        let ids = i64::try_from(ids).unwrap_or(i64::MAX);
        self.shared.ids.increment((ids - std::mem::replace(&mut self.ids, ids)) as f64);
    }
}

impl Drop for Holdings {
    fn drop(&mut self) {
        self.shared.add(0, -self.bytes, 0);
        for (form, hours) in self.hours.into_iter().enumerate() {
            self.shared.add(form, 0, -hours);
        }
        self.shared.ids.decrement(self.ids as f64);
    }
}
