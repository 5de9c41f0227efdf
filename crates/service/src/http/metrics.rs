//! Names of the HTTP server's metrics, and what they mean.

use metrics::{describe_counter, describe_gauge};

/// Open connections.
pub(super) const CONNECTIONS: &str = "millrace_http_connections";
/// Connections that were not served, by reason.
pub(super) const REFUSED: &str = "millrace_http_connections_refused_total";
/// Connections that were cut, by reason.
pub(super) const CUT: &str = "millrace_http_connections_cut_total";

/// Registers the help texts.
pub(crate) fn describe() {
    describe_gauge!(CONNECTIONS, "Open HTTP connections");
    describe_counter!(REFUSED, "HTTP connections that were not served, by reason");
    describe_counter!(CUT, "HTTP connections that were cut for being slow or idle, by reason");
    describe_counter!("millrace_http_problems_total", "Problems answered, by code");
}
