//! The series of authentication, which exist from the start.

use metrics::{counter, gauge};
use millrace_contracts::metric;

use super::jwt::TokenRefusal;
use super::rate::Unit;

/// Creates every series at 0.
pub(crate) fn register() {
    for reason in ["missing", "invalid", "unavailable", "scope", "cross-site", "host", "rate-limited"] {
        counter!(metric::AUTH_DENIED.name, "reason" => reason).increment(0);
    }
    for refusal in TokenRefusal::ALL {
        counter!(metric::AUTH_TOKENS_REFUSED.name, "reason" => refusal.as_str()).increment(0);
    }
    for unit in Unit::ALL {
        counter!(metric::AUTH_RATE_LIMITED.name, "limit" => unit.name()).increment(0);
    }
    counter!(metric::AUTH_RELOADS.name).increment(0);
    for gauge in [metric::AUTH_KEYS, metric::AUTH_STALE, metric::AUTH_JWKS_KEYS, metric::AUTH_JWKS_STALE] {
        gauge!(gauge.name).increment(0.0);
    }
}
