//! The fault harness: starts the whole system as processes, sends events, injects faults by a seeded schedule, repairs
//! them, and compares every count with an oracle that relies on responses alone.
//!
//! In it: the events ([`event`]), the oracle and the load ([`oracle`], [`load`]), the same for messages over TCP, of topics
//! and that are pushed (`intake`, `messages`, `push`), the processes and links ([`system`]), the nemesis ([`nemesis`]), the comparison ([`check`]), the rows of the fault table ([`scenarios`]), the
//! negative controls ([`controls`]) and the report. Not in it: any code of the product, which is a black box behind HTTP,
//! TCP, the journal's files, processes and the servers' own protocols; apache-avro decodes its records here.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod check;
pub mod client;
mod cluster;
pub mod controls;
pub mod event;
pub mod fault;
pub mod fold;
mod hostile;
mod intake;
pub mod load;
mod log;
mod messages;
pub mod meter;
pub mod nemesis;
pub mod node;
pub mod options;
pub mod oracle;
pub mod order;
mod push;
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

/// Locks a mutex.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder of this lock panics")
}

/// Prints a line to standard output.
pub fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
