//! The write side's metrics: names, help and handles. The handle of the hot path is looked up once.

use metrics::{Counter, counter, describe_counter};
use millrace_contracts::Code;

const EVENTS: &str = "millrace_command_events_total";

pub(crate) struct Metrics {
    accepted: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        describe_counter!(EVENTS, "Events by outcome: accepted, a reason of refusal, or outcome-unknown");
        Self { accepted: counter!(EVENTS, "outcome" => Code::Accepted.as_str()) }
    }

    /// Counts one event's outcome.
    pub(crate) fn count(&self, code: Code) {
        if code == Code::Accepted {
            self.accepted.increment(1);
        } else {
            counter!(EVENTS, "outcome" => code.as_str()).increment(1);
        }
    }
}
