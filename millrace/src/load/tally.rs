//! The results of a part of a load: what each connection records.

use super::generator::Shape;
use super::latency::Latencies;
use super::oracle::Oracle;
use crate::client::Verdict;

/// Outcomes and response times.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// The expected counts.
    pub(crate) oracle: Oracle,
    /// Response times; in a paced load from the moment the request was due.
    pub(crate) latencies: Latencies,
    /// Events in the log.
    pub(crate) acknowledged: u64,
    /// Events that are not in the log, for good.
    pub(crate) refused: u64,
    /// Events of unknown outcome.
    pub(crate) unknown: u64,
    /// Events sent again after a refusal, or because no connection accepted them.
    pub(crate) retried: u64,
    /// Events sent again because their outcome was unknown.
    pub(crate) resent: u64,
    /// Duplicates with a response.
    pub(crate) duplicated: u64,
}

impl Tally {
    /// Records the final outcome of an event, once, however often it was sent.
    pub(crate) fn record(&mut self, shape: &Shape, number: u64, verdict: Verdict) {
        let event = shape.event(number);
        match verdict {
            Verdict::Acknowledged => {
                self.acknowledged += 1;
                self.oracle.acknowledged(event);
            }
            Verdict::Unknown => {
                self.unknown += 1;
                self.oracle.unknown(event);
            }
            Verdict::Rejected | Verdict::Retriable => self.refused += 1,
        }
    }

    /// Adds the results of another part.
    pub(crate) fn merge(&mut self, other: Self) {
        self.oracle.merge(other.oracle);
        self.latencies.merge(&other.latencies);
        self.acknowledged += other.acknowledged;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.retried += other.retried;
        self.resent += other.resent;
        self.duplicated += other.duplicated;
    }
}
