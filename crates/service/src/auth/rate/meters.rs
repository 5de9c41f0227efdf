//! The meters of all principals, within a bound.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, PoisonError};

use super::quota::{Meter, now};

/// Most principals with meters of their own.
const MAX: usize = 1 << 17;
const SHARDS: usize = 16;
/// Between two sweeps of a shard, in ns: a flood of principals must not cost a sweep each.
const SWEEP_INTERVAL: u64 = 100_000_000;

/// The meters of principals. One that has used nothing for a second is as good as new, so it is dropped when its place is
/// needed. Beyond the bound, principals share one.
#[derive(Debug)]
pub(super) struct Meters {
    max_of_shard: usize,
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    shared: Arc<Meter>,
}

#[derive(Debug, Default)]
struct Shard {
    meters: HashMap<Box<str>, Arc<Meter>>,
    swept: Option<u64>,
}

impl Default for Meters {
    fn default() -> Self {
        Self::new(MAX)
    }
}

impl Meters {
    fn new(max: usize) -> Self {
        Self {
            max_of_shard: max / SHARDS,
            hasher: RandomState::new(),
            shards: Default::default(),
            shared: Arc::default(),
        }
    }

    /// The meters of a principal.
    pub(super) fn of(&self, principal: &str) -> Arc<Meter> {
        self.of_at(principal, now())
    }

    fn of_at(&self, principal: &str, now: u64) -> Arc<Meter> {
        // The modulus fits into any integer.
        let shard = usize::try_from(self.hasher.hash_one(principal) % SHARDS as u64).unwrap_or_default();
        let mut shard = self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = shard.meters.get(principal) {
            return meter.clone();
        }
        if shard.meters.len() >= self.max_of_shard {
            shard.sweep(now);
        }
        if shard.meters.len() >= self.max_of_shard {
            return self.shared.clone();
        }
        shard.meters.entry(principal.into()).or_default().clone()
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().meters.len()).sum()
    }
}

impl Shard {
    /// Drops the meters that nobody has and that have nothing to remember.
    fn sweep(&mut self, now: u64) {
        if self.swept.is_some_and(|at| now < at + SWEEP_INTERVAL) {
            return;
        }
        self.swept = Some(now);
        self.meters.retain(|_, meter| Arc::strong_count(meter) > 1 || !meter.is_unused(now));
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PrincipalLimits, Quota};
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_flood_of_principals_takes_bounded_memory_and_forgets_nobody_who_has_used_something() {
        let meters = Meters::new(1_600);
        let limits = PrincipalLimits { max_event_rate: 10, ..PrincipalLimits::NONE };
        let busy = Quota::new(limits, || meters.of_at("busy", 0)).unwrap();
        busy.charge_at(1_000, 0, 0);
        let held = meters.of_at("held", 0);
        drop(busy);
        for flood in 0..100_000_u64 {
            meters.of_at(&format!("jwt:{flood}"), flood * SWEEP_INTERVAL / 100);
        }
        assert!(meters.len() <= 1_600, "{}", meters.len());
        let again = Quota::new(limits, || meters.of_at("busy", 50 * SECOND)).unwrap();
        assert!(again.admit_at(1, 0, 50 * SECOND).is_err(), "what it owes is not forgotten");
        assert!(again.admit_at(1, 0, 100 * SECOND).is_ok());
        assert!(Arc::ptr_eq(&held, &meters.of_at("held", 50 * SECOND)), "who is connected keeps its meters");
    }

    #[test]
    fn beyond_the_bound_principals_share() {
        let meters = Meters::new(SHARDS);
        let held: Vec<_> = (0..1_000).map(|n| meters.of_at(&n.to_string(), n)).collect();
        let shared = held.iter().filter(|meter| Arc::ptr_eq(meter, &meters.shared)).count();
        assert_eq!(shared, 1_000 - SHARDS, "each shard has one");
    }
}
