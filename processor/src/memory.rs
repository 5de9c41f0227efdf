//! How much memory the users of all partitions of this process take, and in which form their hours are.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::metric;
use crate::users::{Set, Users};

const FORMS: usize = 3;

/// What all partitions of the process hold together.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    bytes: AtomicI64,
    hours: [AtomicI64; FORMS],
    ids: AtomicI64,
}

/// What one partition holds of it; given back when it goes.
#[derive(Debug)]
pub(crate) struct Holdings {
    shared: Arc<Shared>,
    bytes: i64,
    hours: [i64; FORMS],
    ids: i64,
}

/// What was told of one hour.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Held(Option<(i64, usize)>);

impl Holdings {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, bytes: 0, hours: [0; FORMS], ids: 0 }
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
        self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shared.hours[form].fetch_add(hours, Ordering::Relaxed);
    }

    /// Sets the gauges. `ids`: the event ids that are held.
    pub(crate) fn show(&mut self, ids: usize) {
        let ids = i64::try_from(ids).unwrap_or(i64::MAX);
        self.shared.ids.fetch_add(ids - std::mem::replace(&mut self.ids, ids), Ordering::Relaxed);
        metrics::gauge!(metric::IDS).set(self.shared.ids.load(Ordering::Relaxed) as f64);
        metrics::gauge!(metric::MEMORY).set(self.shared.bytes.load(Ordering::Relaxed) as f64);
        for (form, hours) in metric::FORMS.into_iter().zip(&self.shared.hours) {
            metrics::gauge!(metric::HOURS, "form" => form).set(hours.load(Ordering::Relaxed) as f64);
        }
    }
}

impl Drop for Holdings {
    fn drop(&mut self) {
        self.shared.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.shared.ids.fetch_sub(self.ids, Ordering::Relaxed);
        for (shared, own) in self.shared.hours.iter().zip(self.hours) {
            shared.fetch_sub(own, Ordering::Relaxed);
        }
    }
}
