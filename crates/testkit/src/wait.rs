//! Waiting by polling with a deadline; unique names and free ports.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// The interval between two checks of a condition.
const POLL: Duration = Duration::from_millis(20);

/// Ports that [`free_port`] has returned; their servers may not listen on them yet.
static RETURNED: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// Polls until `condition` holds; false if it did not within `within`.
#[must_use = "false means that the deadline passed"]
pub fn wait_until(within: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + within;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(POLL);
    }
}

/// A name that no other test and no other run uses: `topic-4f0c…`.
pub fn unique(what: &str) -> String {
    format!("{what}-{:016x}", random())
}

/// A free port on loopback, a different one on each call.
///
/// It is below the ephemeral range, so that no client's connection has taken it when a server restarts on it.
///
/// # Panics
/// If a thousand ports in a row are taken.
pub fn free_port() -> u16 {
    (0..1000)
        .map(|_| 10_000 + u16::try_from(random() % 20_000).expect("below 20,000"))
        .filter(|&port| RETURNED.lock().expect("no holder of this lock panics").insert(port))
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .expect("a free port on loopback")
}

fn random() -> u64 {
    // The system seeds each RandomState differently.
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_names_differ() {
        assert_ne!(unique("a"), unique("a"));
        assert!(unique("topic").starts_with("topic-"));
    }

    #[test]
    fn binds_a_free_port() {
        TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
    }

    #[test]
    fn stops_waiting_at_the_deadline() {
        assert!(!wait_until(Duration::from_millis(1), || false));
        assert!(wait_until(Duration::ZERO, || true));
    }
}
