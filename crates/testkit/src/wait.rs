//! Waiting by polling with a deadline, and names and ports that nobody else has.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Ports given out by this process, which may not listen on them yet.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

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

/// A port on loopback that nothing listens on, and another one each time.
///
/// It lies below the range that systems hand out for outgoing connections, so that a server which is restarted on it
/// does not find it taken by some client.
///
/// # Panics
/// If a thousand ports in a row are taken.
pub fn free_port() -> u16 {
    (0..1000)
        .map(|_| 10_000 + u16::try_from(random() % 20_000).expect("below 20,000"))
        .filter(|&port| GIVEN.lock().expect("no holder of this lock panics").insert(port))
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .expect("a free port on loopback")
}

fn random() -> u64 {
    // RandomState is seeded by the system, and differently each time.
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        assert_ne!(unique("a"), unique("a"));
        assert!(unique("topic").starts_with("topic-"));
    }

    #[test]
    fn a_free_port_can_be_bound() {
        TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
    }

    #[test]
    fn a_deadline_ends_the_wait() {
        assert!(!wait_until(Duration::from_millis(1), || false));
        assert!(wait_until(Duration::ZERO, || true));
    }
}
