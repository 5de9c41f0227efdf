//! The read models: the ports that write them, and the stores behind them.
//!
//! [`HourlyStore::write`] takes [`HourlyCount`](millrace_contracts::HourlyCount)s of one partition together with their
//! position in `analytics.hourly`. A read returns the [`HourRead`] of one hour, summed over the partitions. Three stores
//! give the same guarantees and pass the same tests:
//!
//! * [`LiveHours`]: Redis, the current and the most recent hours, with a time to live;
//! * [`Archive`]: every hour, in PostgreSQL or in the embedded engine's own database.
//!
//! Counts and position change in one atomic unit, so a store is always the fold of the log up to its position, and the log
//! rebuilds a lost store. Only a store that is complete returns zeros.
//!
//! [`MessageIndex`] is another read model in the same two databases: where in `messages` the messages of each topic are.
//!
//! `millrace-processor` computes the counts, `millrace-materializer` decides when to write them.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test fails by panicking"))]

mod archive;
mod hourly;
mod index;
mod live;
mod postgres;
mod secret;
mod snapshot;

pub use archive::{Archive, ArchiveExtent, ArchiveWriter};
pub use hourly::{HourRead, HourlyStore, Totals};
pub use index::{IndexPage, IndexPosition, IndexRow, IndexStep, MessageIndex};
pub use live::{LiveHours, LiveHoursWriter, LiveWindow, RedisConfig, RefillOutcome};
pub use postgres::PostgresConfig;
pub use secret::SecretUrl;
pub use snapshot::PartitionSnapshot;
