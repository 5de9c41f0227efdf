//! The series of the HTTP server, which exist from the start: a rate over a series that begins with its first count misses
//! that count.

use metrics::{counter, gauge};
use millrace_contracts::{Code, metric};

/// Creates every series at 0.
pub(crate) fn register() {
    gauge!(metric::HTTP_CONNECTIONS.name).increment(0.0);
    for reason in ["total", "per-ip", "accept", "proxy"] {
        counter!(metric::HTTP_REFUSED.name, "reason" => reason).increment(0);
    }
    for reason in ["head", "idle", "write", "stream"] {
        counter!(metric::HTTP_TIMEOUTS.name, "reason" => reason).increment(0);
    }
    gauge!(metric::TLS_STALE.name).increment(0.0);
    for reason in ["timeout", "failed"] {
        counter!(metric::TLS_REFUSED.name, "reason" => reason).increment(0);
    }
    for code in Code::ALL.iter().filter(|&&code| code != Code::Accepted) {
        counter!(metric::HTTP_PROBLEMS.name, "code" => code.as_str()).increment(0);
    }
}
