//! The metrics of the query service: their names, labels and descriptions.

use metrics::{Counter, Gauge, counter, describe_counter, describe_gauge, gauge};
use millrace_contracts::Code;

use crate::Tier;

const READS: &str = "millrace_query_reads_total";
const STALE: &str = "millrace_query_stale_reads_total";
const UNANSWERED: &str = "millrace_query_unanswered_total";
const REFRESHES: &str = "millrace_query_refreshes_total";
const STORE_ERRORS: &str = "millrace_query_store_errors_total";
const BREAKER: &str = "millrace_query_breaker_open";
const REFILLS: &str = "millrace_query_refills_asked_total";
const RANGE_ROWS: &str = "millrace_query_range_hours_total";
const STREAMS: &str = "millrace_query_live_streams";
const EVENTS: &str = "millrace_query_live_events_total";

/// Counters of the hot path, looked up once.
pub(crate) struct Metrics {
    memory: Counter,
    redis: Counter,
    archive: Counter,
    stale: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe_counter!(READS, "Reads answered with numbers, by the tier that answered");
        describe_counter!(STALE, "Reads answered with numbers that are marked stale");
        describe_counter!(UNANSWERED, "Reads answered with 503, by outcome code");
        describe_counter!(REFRESHES, "Reads of the current hour from its store");
        describe_counter!(STORE_ERRORS, "Failed reads of a read model");
        describe_gauge!(BREAKER, "1 while a read model is left alone because it keeps failing");
        describe_counter!(REFILLS, "Requests that an older hour be put into Redis again");
        describe_counter!(RANGE_ROWS, "Hours answered in ranges");
        describe_gauge!(STREAMS, "Live streams");
        describe_counter!(EVENTS, "Events of the live stream, each made once for all who listen");
        Self {
            memory: counter!(READS, "tier" => Tier::Memory.as_str()),
            redis: counter!(READS, "tier" => Tier::Redis.as_str()),
            archive: counter!(READS, "tier" => Tier::Archive.as_str()),
            stale: counter!(STALE),
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

pub(crate) fn unanswered(code: Code) {
    counter!(UNANSWERED, "code" => code.as_str()).increment(1);
}

pub(crate) fn refreshed() {
    counter!(REFRESHES).increment(1);
}

pub(crate) fn store_error(tier: Tier) {
    counter!(STORE_ERRORS, "store" => tier.as_str()).increment(1);
}

pub(crate) fn breaker(tier: Tier, open: bool) {
    gauge!(BREAKER, "store" => tier.as_str()).set(if open { 1.0 } else { 0.0 });
}

pub(crate) fn refill_asked() {
    counter!(REFILLS).increment(1);
}

pub(crate) fn range_hours(hours: usize) {
    counter!(RANGE_ROWS).increment(hours as u64);
}

pub(crate) fn streams() -> Gauge {
    gauge!(STREAMS)
}

pub(crate) fn event() {
    counter!(EVENTS).increment(1);
}
