//! Hosts of this machine.

use std::net::IpAddr;

/// Whether a host is this machine, whatever a resolver returns.
pub fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}
