//! The metrics of the query service.

use metrics::{Counter, Gauge, counter, gauge};
use millrace_contracts::{Code, metric};
use millrace_service::breaker::BreakerMetrics;

use crate::stores::port::Tier;

/// Counters of the hot path, registered once.
pub(crate) struct Metrics {
    memory: Counter,
    redis: Counter,
    archive: Counter,
    stale: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        register();
        Self {
            memory: counter!(metric::READS.name, "tier" => Tier::Memory.as_str()),
            redis: counter!(metric::READS.name, "tier" => Tier::Redis.as_str()),
            archive: counter!(metric::READS.name, "tier" => Tier::Archive.as_str()),
            stale: counter!(metric::STALE_READS.name),
        }
    }

    pub(crate) fn answered(&self, tier: Tier, stale: bool) {
        match tier {
            Tier::Memory => self.memory.increment(1),
            Tier::Redis => self.redis.increment(1),
            Tier::Archive => self.archive.increment(1),
        }
        if stale {
            self.stale.increment(1);
        }
    }
}

/// Registers series at 0 that otherwise appear with their first count: `rate()` misses that one.
fn register() {
    for code in [Code::Overloaded, Code::Unavailable, Code::Rebuilding, Code::NotYetVisible] {
        counter!(metric::UNAVAILABLE_READS.name, "code" => code.as_str()).increment(0);
    }
    for tier in [Tier::Redis, Tier::Archive] {
        counter!(metric::STORE_ERRORS.name, "store" => tier.as_str()).increment(0);
    }
    for metric in [metric::REFRESHES, metric::REFILL_REQUESTS, metric::RANGE_HOURS, metric::LIVE_EVENTS] {
        counter!(metric.name).increment(0);
    }
    streams().increment(0.0);
}

pub(crate) fn read_unavailable(code: Code) {
    counter!(metric::UNAVAILABLE_READS.name, "code" => code.as_str()).increment(1);
}

pub(crate) fn refreshed() {
    counter!(metric::REFRESHES.name).increment(1);
}

pub(crate) fn breaker(tier: Tier) -> BreakerMetrics {
    let store = tier.as_str();
    BreakerMetrics {
        open: gauge!(metric::BREAKER_OPEN.name, "store" => store),
        errors: counter!(metric::STORE_ERRORS.name, "store" => store),
    }
}

pub(crate) fn events_waiting(tier: Tier, events: u64) {
    gauge!(metric::EVENTS_WAITING.name, "store" => tier.as_str()).set(events as f64);
}

pub(crate) fn refill_requested() {
    counter!(metric::REFILL_REQUESTS.name).increment(1);
}

pub(crate) fn range_hours(hours: usize) {
    counter!(metric::RANGE_HOURS.name).increment(hours as u64);
}

pub(crate) fn streams() -> Gauge {
    gauge!(metric::LIVE_STREAMS.name)
}

pub(crate) fn live_event() {
    counter!(metric::LIVE_EVENTS.name).increment(1);
}
