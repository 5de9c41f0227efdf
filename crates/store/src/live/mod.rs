//! The live hours in Redis: the current hour and the most recent ones of a window, with a time to live.
//!
//! Each partition has a hash `pos` and a string per hour. A missing hour means zero, for these reasons:
//!
//! * A key never expires inside the window: it expires a margin after its hour leaves the window.
//! * `pos` has `complete` set once the partition has caught up with the log. A rebuild (no `pos`: Redis was flushed) starts
//!   a new **build** that is incomplete until then. Every hour's value names its build; a value of another build counts as
//!   absent, so a reader never takes leftovers of an earlier build for counts.
//! * `hours` is the writer's window. A reader with a wider window returns "rebuilding"; a writer with a wider one rebuilds.
//! * `written_from` is the first hour that every writer of the build wrote. One with a fast clock leaves out hours that are
//!   in the window of a reader, which then returns "rebuilding" for them. A writer whose own first hour is more than an
//!   hour earlier rebuilds.
//! * `counted` is the position of the input up to which the counts hold, and its log time.
//! * The **incarnation** changes with every build and whenever the stored position decreases (a failover to a lagging
//!   replica). A new incarnation is incomplete until it catches up. Within an incarnation, positions never decrease.
//!
//! A refill copies any other hour from the archive, under separate keys with a short time to live: there a missing key
//! means nothing. Each new count also corrects the refilled value of its hour, in the same step as the position.
//!
//! The materializer probes for positions that decreased while nothing is written. In addition, a reader that has observed a
//! higher position in the same incarnation returns "rebuilding".

mod config;
mod connect;
mod error;
mod keys;
mod reader;
mod refill;
mod script;
mod window;
mod writer;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use millrace_contracts::{CountedPosition, Hour, Names, Next, StoreError};
use redis::aio::ConnectionManager;
use tokio::sync::OnceCell;

use crate::{HourRead, PartitionSnapshot, Totals};

pub use config::RedisConfig;
pub use refill::RefillOutcome;
pub use window::LiveWindow;
pub use writer::LiveHoursWriter;

use keys::Keys;
use reader::PartitionFloor;

/// The live hours. Cheap to clone; every clone shares one connection.
#[derive(Clone)]
pub struct LiveHours(Arc<Inner>);

struct Inner {
    connection: ConnectionManager,
    /// Set once the server passed the check.
    checked: OnceCell<()>,
    keys: Keys,
    partitions: u32,
    window: LiveWindow,
    margin_ms: u64,
    older_ttl_ms: u64,
    /// The highest position of each partition that writers of this process confirmed. A lower one means that Redis lost data.
    written: Mutex<HashMap<u32, u64>>,
    /// The highest position of each partition that readers of this process observed.
    floors: Mutex<Vec<PartitionFloor>>,
}

impl LiveHours {
    /// Connects, and checks that Redis has version 6.2 or newer and no eviction. An unreachable server is not an error: the
    /// archive works without it, and the check precedes the first write.
    pub async fn connect(
        config: &RedisConfig,
        names: &Names,
        partitions: u32,
        window: LiveWindow,
    ) -> Result<Self, StoreError> {
        let inner = Inner {
            connection: connect::open(config)?,
            checked: OnceCell::new(),
            keys: Keys::new(names),
            partitions,
            window,
            margin_ms: config.ttl_margin.as_millis(),
            older_ttl_ms: config.refill_ttl.as_millis(),
            written: Mutex::default(),
            floors: Mutex::new(vec![PartitionFloor::default(); partitions as usize]),
        };
        match inner.check().await {
            Err(error) if error.next == Next::Retry => {
                tracing::warn!(%error, "Redis is unreachable: retrying at the next use");
            }
            checked => checked?,
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Whether the window contains this hour now.
    pub fn covers(&self, hour: Hour) -> bool {
        self.0.window.covers(hour)
    }

    /// Reads an hour inside the window, in one round trip. Outside the window it returns [`HourRead::Rebuilding`].
    pub async fn hour(&self, hour: Hour) -> Result<HourRead, StoreError> {
        if !self.covers(hour) {
            return Ok(HourRead::Rebuilding);
        }
        reader::live(&self.0, hour).await
    }

    /// Reads a refilled hour outside the window, in one round trip. `None` if it is absent or expired.
    pub async fn older(&self, hour: Hour) -> Result<Option<Totals>, StoreError> {
        reader::older(&self.0, hour).await
    }

    /// Up to which position each partition's events are counted here; `None` of one that is being rebuilt, and of one that the
    /// processor has not counted since it writes this. What is read after this call contains at least that.
    pub async fn counted(&self) -> Result<Vec<Option<CountedPosition>>, StoreError> {
        reader::counted(&self.0).await
    }

    /// Fills an hour outside the window with the counts of the archive, for [`LiveHours::older`]. In any order of counts and
    /// refills, a refill never replaces a newer count.
    pub async fn fill(&self, hour: Hour, parts: &[PartitionSnapshot]) -> Result<RefillOutcome, StoreError> {
        refill::fill(&self.0, hour, parts).await
    }

    /// A snapshot of each partition, consistent per partition, of those requested hours that are live.
    pub async fn snapshot(
        &self,
        partitions: Range<u32>,
        hours: Range<Hour>,
    ) -> Result<Vec<PartitionSnapshot>, StoreError> {
        let live = self.0.window.live();
        let hours = hours.start.max(live.start)..hours.end.min(live.end);
        let mut parts = Vec::new();
        for partition in partitions {
            parts.push(refill::snapshot(&self.0, partition, hours.clone()).await?);
        }
        Ok(parts)
    }

    /// The hours of the window now, including the next one for early events.
    pub fn live(&self) -> Range<Hour> {
        self.0.window.live()
    }

    /// Makes the materializers rebuild everything. Until then, reads return [`HourRead::Rebuilding`].
    pub async fn reset(&self) -> Result<(), StoreError> {
        refill::reset(&self.0).await
    }

    /// A writer for the live hours.
    pub fn writer(&self) -> LiveHoursWriter {
        LiveHoursWriter::new(self.0.clone())
    }
}

impl Inner {
    async fn check(&self) -> Result<(), StoreError> {
        self.checked.get_or_try_init(|| connect::check(self.connection.clone())).await.copied()
    }
}

impl std::fmt::Debug for LiveHours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LiveHours").field("partitions", &self.0.partitions).field("window", &self.0.window).finish()
    }
}
