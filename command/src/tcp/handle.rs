//! What the listener knows of a connection while another task drives it: the order it gave, and how long nothing happens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millrace_service::net::{Connection, OrderCell};

/// What the listener sees of a connection.
#[derive(Debug)]
pub(crate) struct TcpConnection {
    order: OrderCell,
    began: Instant,
    /// Ms after `began` since when nothing is under way; `u64::MAX` while something is.
    idle_since: AtomicU64,
}

impl TcpConnection {
    pub(crate) fn new() -> Self {
        Self { order: OrderCell::default(), began: Instant::now(), idle_since: AtomicU64::new(0) }
    }

    /// Nothing is under way since then; `None` if something is.
    pub(crate) fn set_idle(&self, since: Option<Instant>) {
        let ms = |at: Instant| u64::try_from(at.duration_since(self.began).as_millis()).unwrap_or(u64::MAX - 1);
        self.idle_since.store(since.map_or(u64::MAX, ms), Ordering::Relaxed);
    }
}

impl Connection for TcpConnection {
    fn order(&self) -> &OrderCell {
        &self.order
    }

    fn idle(&self) -> Option<Duration> {
        let since = self.idle_since.load(Ordering::Relaxed);
        (since != u64::MAX).then(|| self.began.elapsed().saturating_sub(Duration::from_millis(since)))
    }
}
