//! What push counts, and the events that it and others cause.

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use millrace_contracts::metric;
use millrace_contracts::topics::AttemptError;

/// Handles of the metrics, registered before they first count.
#[derive(Debug)]
pub(crate) struct PushMetrics {
    success: Counter,
    failures: Vec<(AttemptError, Counter)>,
    pub(crate) seconds: Histogram,
    pub(crate) in_flight: Gauge,
    pub(crate) dropped_events: Counter,
}

impl PushMetrics {
    pub(crate) fn register() -> Self {
        let outcome = |name: &'static str| counter!(metric::PUSH_ATTEMPTS.name, "outcome" => name);
        let failure = |error: AttemptError| (error, outcome(error.as_str()));
        let in_flight = gauge!(metric::PUSH_IN_FLIGHT.name);
        in_flight.set(0.0);
        Self {
            success: outcome("success"),
            failures: AttemptError::ALL.map(failure).into(),
            seconds: histogram!(metric::PUSH_SECONDS.name),
            in_flight,
            dropped_events: counter!(metric::DROPPED_EVENTS.name),
        }
    }

    /// An attempt ended.
    pub(crate) fn attempted(&self, error: Option<AttemptError>) {
        let counter = self.failures.iter().find(|(known, _)| Some(*known) == error).map(|(_, counter)| counter);
        counter.unwrap_or(&self.success).increment(1);
    }
}
