//! What connections report.

use metrics::Counter;
use millrace_contracts::metric;

use super::replies::Counts;
use super::reply::Nack;

/// Why the server ends connections.
const CLOSED: [&str; 11] = [
    "bad-frame",
    "unauthenticated",
    "unavailable",
    "forbidden",
    "rate-limited",
    "idle",
    "partial",
    "shutting-down",
    "write-timeout",
    "evicted",
    "reset",
];

/// Counters of all connections.
#[derive(Debug)]
pub(crate) struct TcpMetrics {
    acked: Counter,
    /// In the order of [`Nack::ALL`].
    refused: [Counter; Nack::ALL.len()],
    unknown: Counter,
}

impl TcpMetrics {
    pub(crate) fn new() -> Self {
        // A rate over a series that begins with its first count misses it.
        for reason in CLOSED {
            metrics::counter!(metric::TCP_CLOSED.name, "reason" => reason).increment(0);
        }
        for reason in ["total", "per-ip", "accept", "proxy"] {
            metrics::counter!(metric::TCP_REFUSED.name, "reason" => reason).increment(0);
        }
        metrics::gauge!(metric::TCP_CONNECTIONS.name).increment(0);
        let frames = |outcome: &'static str| metrics::counter!(metric::TCP_FRAMES.name, "outcome" => outcome);
        Self { acked: frames("acked"), refused: Nack::ALL.map(|nack| frames(nack.word())), unknown: frames("unknown") }
    }

    pub(crate) fn count(&self, counts: &Counts) {
        self.acked.increment(counts.acked);
        self.unknown.increment(counts.unknown);
        for (counter, number) in self.refused.iter().zip(counts.refused).filter(|(_, number)| *number > 0) {
            counter.increment(number);
        }
        if let Some(why) = counts.closed {
            closed(why.word());
        }
    }
}

/// The server closed a connection.
pub(crate) fn closed(reason: &'static str) {
    metrics::counter!(metric::TCP_CLOSED.name, "reason" => reason).increment(1);
}
