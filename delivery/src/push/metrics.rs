//! What push counts.

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
        }
    }

    /// An attempt ended.
    pub(crate) fn attempted(&self, error: Option<AttemptError>) {
        let counter = self.failures.iter().find(|(known, _)| Some(*known) == error).map(|(_, counter)| counter);
        counter.unwrap_or(&self.success).increment(1);
    }
}
