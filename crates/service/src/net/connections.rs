//! The open connections of one listener: their number is bounded, alone and with those of the other listeners, and idle ones
//! give way to new ones.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use futures::task::AtomicWaker;
use metrics::Gauge;
use tokio::time::Instant;

use super::files::{Evict, FileBudget, FilePermit};

/// A connection that was idle for less is never closed in favor of a new one.
const MIN_IDLE: Duration = Duration::from_secs(1);
/// Pause between two searches for idle connections.
const EVICTION_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of the connections of one listener.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Open connections.
    pub max_connections: usize,
    /// Open connections of one peer address; 0 for no bound.
    pub max_connections_per_ip: usize,
    /// How long connections may take to finish at shutdown, before they are cut.
    pub drain_timeout: Duration,
}

/// What the server orders a connection to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Order {
    /// Serve.
    Run,
    /// Finish what is under way, then close.
    Drain,
    /// Close now.
    Cut,
}

/// An order to one connection. The task that drives the connection registers its waker and reads the order at each poll.
#[derive(Debug, Default)]
pub struct OrderCell {
    order: AtomicU8,
    waker: AtomicWaker,
}

impl OrderCell {
    /// Gives an order. Orders only become stricter.
    pub fn set(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::Release);
        self.waker.wake();
    }

    /// The current order; `waker` is woken when it changes.
    pub fn get(&self, waker: &Waker) -> Order {
        self.waker.register(waker);
        match self.order.load(Ordering::Acquire) {
            0 => Order::Run,
            1 => Order::Drain,
            _ => Order::Cut,
        }
    }
}

/// What the listener needs of a protocol's connection.
pub trait Connection: Send + Sync + 'static {
    /// The order to this connection.
    fn order(&self) -> &OrderCell;

    /// For how long nothing is under way; `None` while something is.
    fn idle(&self) -> Option<Duration>;
}

/// Why a connection was not served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The listener has as many connections as it may, or all listeners together.
    Total,
    /// The peer address has as many connections as it may.
    PerIp,
}

pub(super) struct Connections<C> {
    max: usize,
    max_per_ip: usize,
    files: Arc<FileBudget>,
    open: Mutex<Open<C>>,
    gauge: Gauge,
}

struct Open<C> {
    next_id: u64,
    by_id: HashMap<u64, Arc<C>>,
    per_ip: HashMap<IpAddr, usize>,
    last_eviction: Option<Instant>,
}

/// The permit of one open connection; dropping it gives it back.
pub(super) struct ConnectionPermit<C> {
    connections: Arc<Connections<C>>,
    id: u64,
    ip: IpAddr,
    _file: FilePermit,
}

impl<C: Connection> Connections<C> {
    pub(super) fn new(max: usize, max_per_ip: usize, files: Arc<FileBudget>, gauge: Gauge) -> Arc<Self> {
        let open = Open { next_id: 0, by_id: HashMap::new(), per_ip: HashMap::new(), last_eviction: None };
        let max = files.fit(max);
        let connections = Arc::new(Self { max, max_per_ip, files, open: Mutex::new(open), gauge });
        let listener: Arc<dyn Evict> = connections.clone();
        connections.files.register(Arc::downgrade(&listener));
        connections
    }

    /// Admits a connection. At the bound, idle connections are ordered to close, and this one is rejected.
    pub(super) fn admit(self: &Arc<Self>, ip: IpAddr, connection: Arc<C>) -> Result<ConnectionPermit<C>, Rejection> {
        let mut open = lock(&self.open);
        if open.by_id.len() >= self.max {
            open.evict();
            return Err(Rejection::Total);
        }
        let Some(file) = self.files.acquire(open.by_id.len()) else {
            drop(open);
            self.files.evict_idle();
            return Err(Rejection::Total);
        };
        if self.max_per_ip > 0 {
            let count = open.per_ip.entry(ip).or_default();
            if *count >= self.max_per_ip {
                return Err(Rejection::PerIp);
            }
            *count += 1;
        }
        let id = open.next_id;
        open.next_id += 1;
        open.by_id.insert(id, connection);
        self.gauge.increment(1);
        Ok(ConnectionPermit { connections: self.clone(), id, ip, _file: file })
    }

    pub(super) fn order_all(&self, order: Order) {
        // Woken outside the lock: a connection that ends takes it.
        let connections: Vec<_> = lock(&self.open).by_id.values().cloned().collect();
        for connection in connections {
            connection.order().set(order);
        }
    }
}

impl<C: Connection> Open<C> {
    /// Closes the connections that were idle longest, a sixteenth of all. At most ten times a second: a search through
    /// all connections must not become the attack.
    fn evict(&mut self) {
        if self.last_eviction.is_some_and(|at| at.elapsed() < EVICTION_PAUSE) {
            return;
        }
        self.last_eviction = Some(Instant::now());
        let idle =
            |connection: &Arc<C>| Some((connection.idle().filter(|&idle| idle >= MIN_IDLE)?, connection.clone()));
        let mut idle: Vec<_> = self.by_id.values().filter_map(idle).collect();
        idle.sort_unstable_by_key(|(idle, _)| std::cmp::Reverse(*idle));
        for (_, connection) in idle.iter().take(self.by_id.len() / 16 + 1) {
            connection.order().set(Order::Cut);
        }
    }
}

impl<C: Connection> Evict for Connections<C> {
    fn evict_idle(&self) {
        lock(&self.open).evict();
    }
}

fn lock<C>(open: &Mutex<Open<C>>) -> MutexGuard<'_, Open<C>> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<C> Drop for ConnectionPermit<C> {
    fn drop(&mut self) {
        let mut open = lock(&self.connections.open);
        open.by_id.remove(&self.id);
        if let Some(count) = open.per_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                open.per_ip.remove(&self.ip);
            }
        }
        self.connections.gauge.decrement(1);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[derive(Default)]
    struct Idle(OrderCell);

    impl Connection for Idle {
        fn order(&self) -> &OrderCell {
            &self.0
        }

        fn idle(&self) -> Option<Duration> {
            Some(MIN_IDLE)
        }
    }

    /// One listener's clients cannot use up the files of all. Those of several can: then idle connections give way to those
    /// of another listener, which meanwhile has some of its own.
    #[tokio::test]
    async fn listeners_share_the_files_of_the_process() {
        const MAX: usize = 100;
        let files = Arc::new(FileBudget::new(MAX));
        let listener = || Connections::new(1_000, 0, files.clone(), Gauge::noop());
        let (greedy, second, other) = (listener(), listener(), listener());
        let admit = |listener: &Arc<Connections<Idle>>| {
            let connection = Arc::new(Idle::default());
            listener.admit(Ipv4Addr::LOCALHOST.into(), connection.clone()).map(|permit| (permit, connection))
        };
        let mut held: Vec<_> = std::iter::from_fn(|| admit(&greedy).ok()).collect();
        let own = held.len() - MAX / 4 * 3;
        assert!(own > 0, "{}", held.len());
        let rest: Vec<_> = std::iter::from_fn(|| admit(&second).ok()).collect();
        assert_eq!(rest.len(), own + MAX / 4);
        held.extend(rest);
        let mine: Vec<_> = std::iter::from_fn(|| admit(&other).ok()).collect();
        assert_eq!(mine.len(), own);
        let is_cut = |(_, connection): &(_, Arc<Idle>)| connection.0.get(Waker::noop()) == Order::Cut;
        assert!(held.iter().any(is_cut));
        held.retain(|connection| !is_cut(connection));
        assert!(admit(&other).is_ok());
    }
}
