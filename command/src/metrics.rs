//! Handles of the command service's metrics. Each is looked up once, so that every series exists from the start and none
//! costs a lookup during an overload.

use metrics::{Counter, Gauge, counter, gauge};
use millrace_contracts::{Code, metric};
use millrace_log::Outcome;

pub(crate) struct Metrics {
    /// By code, in the order of [`Code::ALL`], which is that of the discriminants.
    events: Vec<Counter>,
    stored: Counter,
    lost: Counter,
    unknown: Counter,
    pending: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let early = |outcome: &'static str| counter!(metric::COMMAND_ASYNC.name, "outcome" => outcome);
        Self {
            events: Code::ALL
                .iter()
                .map(|code| counter!(metric::COMMAND_EVENTS.name, "outcome" => code.as_str()))
                .collect(),
            stored: early("stored"),
            lost: early("lost"),
            unknown: early("unknown"),
            pending: gauge!(metric::COMMAND_ASYNC_PENDING.name),
        }
    }

    /// Counts the outcome of one event.
    pub(crate) fn count(&self, code: Code) {
        self.count_many(code, 1);
    }

    /// Counts the same outcome of several events.
    pub(crate) fn count_many(&self, code: Code, events: u64) {
        self.events[code as usize].increment(events);
    }

    /// Counts events that were answered before the log's report.
    pub(crate) fn answered_early(&self, events: u32) {
        self.pending.increment(f64::from(events));
    }

    /// Counts the log's report on events that were answered before it.
    pub(crate) fn reported(&self, outcomes: impl Iterator<Item = Outcome>) {
        let (mut stored, mut lost, mut unknown) = (0, 0, 0);
        for outcome in outcomes {
            match outcome {
                Outcome::Acknowledged(_) => stored += 1,
                Outcome::Refused(_) => lost += 1,
                Outcome::Unknown => unknown += 1,
            }
        }
        // First, so that a reader never finds an event both reported and pending.
        self.pending.decrement((stored + lost + unknown) as f64);
        self.stored.increment(stored);
        self.lost.increment(lost);
        self.unknown.increment(unknown);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_discriminant_of_a_code_is_its_index() {
        assert!(Code::ALL.iter().enumerate().all(|(index, &code)| code as usize == index));
    }
}
