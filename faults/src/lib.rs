//! The fault harness: starts everything as real processes, sends events, breaks things by a seeded schedule, mends them,
//! and compares every number with an oracle that only believes answers.
//!
//! What lives here: the events ([`event`]), the oracle and the load ([`oracle`], [`load`]), the processes and links
//! ([`system`]), the nemesis ([`nemesis`]), the comparison ([`check`]), the rows of the fault table ([`scenarios`]), the
//! negative controls ([`controls`]) and the report. What does not: any code of the product. It is a black box behind
//! HTTP, processes and the servers' own protocols; what its records mean is decoded here by other means (apache-avro).

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod check;
pub mod client;
mod cluster;
pub mod controls;
pub mod event;
pub mod fault;
pub mod fold;
pub mod load;
mod log;
pub mod meter;
pub mod nemesis;
pub mod node;
pub mod options;
pub mod oracle;
pub mod order;
pub mod random;
pub mod report;
pub mod run;
pub mod scenarios;
mod stores;
pub mod synced;
pub mod system;
pub mod watcher;

use std::io::Write as _;
use std::sync::{Mutex, MutexGuard};

/// What a mutex guards.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with the lock")
}

/// Prints a line; the terminal of a run is its protocol.
pub fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
