//! The live hours in Redis: the current hour and the last ones of a window, with a time to live.
//!
//! Each partition has a hash `pos` and a string for each hour. What makes a missing hour a zero:
//!
//! * A key never expires inside the window: it lives until the window has passed it, and a margin.
//! * `pos` says `complete` once everything the log held was contained. A rebuild (no `pos`: Redis was flushed) starts a new
//!   **build** that is not complete until then. Every hour's value names its build; values of another one count as absent,
//!   so what a former build left behind is never mistaken for a count.
//! * `hours` is the window the writer kept. A reader with a wider one says rebuilding; a writer with a wider one rebuilds.
//! * The **incarnation** is new for every build and whenever the stored position went back (a failover to a replica that
//!   lagged): it is not complete either until all is contained again. Within one, no position goes back.
//!
//! Any other hour may be filled from the archive (`older`), under keys of its own and for a short time: there a missing key
//! says nothing. Every count corrects what is filled of its hour, in the same step as it moves the position.
//!
//! How an old position is noticed when nothing is written is the materializer's business; a reader that has seen a higher
//! one in the same incarnation says rebuilding by itself.

mod config;
mod connect;
mod error;
mod keys;
mod older;
mod reader;
mod script;
mod window;
mod writer;

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use millrace_contracts::{Hour, Names, Next, StoreError};
use redis::aio::ConnectionManager;
use tokio::sync::OnceCell;

use crate::{Answer, Part, Totals};

pub use config::RedisConfig;
pub use older::Filled;
pub use window::Window;
pub use writer::LiveHoursWriter;

use keys::Keys;
use reader::Seen;

/// The live hours. Cheap to clone; every clone shares one connection.
#[derive(Clone)]
pub struct LiveHours(Arc<Inner>);

struct Inner {
    connection: ConnectionManager,
    /// Filled once the server was found to be one that can be used.
    checked: OnceCell<()>,
    keys: Keys,
    partitions: u32,
    window: Window,
    margin_ms: u64,
    older_ttl_ms: u64,
    /// The highest positions that writers of this process know to be stored: a lower one means that Redis went back.
    written: Mutex<HashMap<u32, u64>>,
    /// What readers of this process have seen of each partition.
    seen: Mutex<Vec<Seen>>,
}

impl LiveHours {
    /// Connects, and checks that Redis is one that can be used: version 6.2 or newer, no eviction. One that is away now is
    /// not an error: the archive goes on without it. It is checked before anything is written to it.
    pub async fn connect(
        config: &RedisConfig,
        names: &Names,
        partitions: u32,
        window: Window,
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
            seen: Mutex::new(vec![Seen::default(); partitions as usize]),
        };
        match inner.check().await {
            Err(error) if error.next == Next::Retry => {
                tracing::warn!(%error, "Redis is unreachable: retrying at the next use");
            }
            checked => checked?,
        }
        Ok(Self(Arc::new(inner)))
    }

    /// Whether Redis answers for this hour now.
    pub fn covers(&self, hour: Hour) -> bool {
        self.0.window.covers(hour)
    }

    /// The counts of an hour inside the window, in one round trip. Outside it nothing is known here:
    /// [`Answer::Rebuilding`].
    pub async fn hour(&self, hour: Hour) -> Result<Answer, StoreError> {
        if !self.covers(hour) {
            return Ok(Answer::Rebuilding);
        }
        reader::live(&self.0, hour).await
    }

    /// The counts of an hour outside the window, in one round trip, if somebody had it filled not long ago.
    pub async fn older(&self, hour: Hour) -> Result<Option<Totals>, StoreError> {
        reader::older(&self.0, hour).await
    }

    /// Fills an hour outside the window with what the archive has of it, for [`LiveHours::older`]. Whatever the order in
    /// which counts and fills come in, what stands is never older than what was counted here.
    pub async fn fill(&self, hour: Hour, parts: &[Part]) -> Result<Filled, StoreError> {
        older::fill(&self.0, hour, parts).await
    }

    /// A look at each of these partitions, consistent for each by itself; of the hours, those that are live.
    pub async fn snapshot(&self, partitions: Range<u32>, hours: Range<Hour>) -> Result<Vec<Part>, StoreError> {
        let live = self.0.window.live();
        let hours = hours.start.max(live.start)..hours.end.min(live.end);
        let mut parts = Vec::new();
        for partition in partitions {
            parts.push(older::snapshot(&self.0, partition, hours.clone()).await?);
        }
        Ok(parts)
    }

    /// The hours that are answered for now, one that may be early included.
    pub fn live(&self) -> Range<Hour> {
        self.0.window.live()
    }

    /// Makes the materializers build everything again; until they have, the answer is [`Answer::Rebuilding`].
    pub async fn reset(&self) -> Result<(), StoreError> {
        older::reset(&self.0).await
    }

    /// Something to write with.
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
