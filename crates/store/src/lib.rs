//! The read models of the hourly counts: the port that writes them and the engines that keep them.
//!
//! A datum comes in as [`HourlyCount`](millrace_contracts::HourlyCount)s of one partition together with the position in
//! `analytics.hourly` they reach ([`HourlyStore::write`]); it goes out as the [`Answer`] for one hour, summed over the
//! partitions. Three stores keep the same promises and pass the same tests:
//!
//! * [`LiveHours`]: Redis, the current and the last hours, with a time to live;
//! * [`Archive`]: every hour, in PostgreSQL or in the embedded engine's own database.
//!
//! Counts and position move in one atomic unit, so a store is always the fold of the log up to its own position, and a
//! lost store is built again from the log. Zeros are only said by a store that is known to be complete.
//!
//! What is counted is not decided here (`millrace-processor`), when to write neither (`millrace-materializer`).

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod archive;
mod clock;
mod hourly;
mod live;
mod part;
mod secret;

pub use archive::{Archive, ArchiveWriter, Edges, PostgresConfig};
pub use clock::Clock;
pub use hourly::{Answer, HourlyStore, Totals};
pub use live::{Filled, LiveHours, LiveHoursWriter, RedisConfig, Window};
pub use part::Part;
pub use secret::SecretUrl;
