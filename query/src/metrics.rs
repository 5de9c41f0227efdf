//! The metrics of the query service: their names, labels and descriptions.

use metrics::{Counter, counter, describe_counter};
use millrace_contracts::Code;

use crate::Tier;

const READS: &str = "millrace_query_reads_total";
const STALE: &str = "millrace_query_stale_reads_total";
const UNANSWERED: &str = "millrace_query_unanswered_total";
const REFRESHES: &str = "millrace_query_refreshes_total";
const STORE_ERRORS: &str = "millrace_query_store_errors_total";

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
        describe_counter!(STALE, "Reads answered with numbers older than allowed, because no store could be read");
        describe_counter!(UNANSWERED, "Reads answered with 503, by outcome code");
        describe_counter!(REFRESHES, "Reads of the current hour from its store");
        describe_counter!(STORE_ERRORS, "Failed reads of a read model");
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
