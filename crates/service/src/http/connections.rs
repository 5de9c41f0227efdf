//! The open connections of one listener, and who must go when there is no room for another.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use metrics::gauge;
use millrace_contracts::metric;
use tokio::time::Instant;

use super::guard::{Guard, Order};

/// A connection that was quiet for less is never closed to make room.
const QUIET_MS: u64 = 1_000;
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Total,
    PerIp,
}

#[derive(Debug)]
pub(super) struct Connections {
    most: usize,
    most_per_ip: usize,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    guards: HashMap<u64, Arc<Guard>>,
    per_ip: HashMap<IpAddr, usize>,
    room_made: Option<Instant>,
}

/// A place among the open connections, given back when dropped.
pub(super) struct Seat {
    connections: Arc<Connections>,
    id: u64,
    ip: IpAddr,
}

impl Connections {
    pub(super) fn new(most: usize, most_per_ip: usize) -> Self {
        Self { most, most_per_ip, open: Mutex::default() }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a connection. When all are taken, quiet connections are told to close, and this one is refused.
    pub(super) fn seat(self: &Arc<Self>, ip: IpAddr, guard: Arc<Guard>) -> Result<Seat, Refused> {
        let mut open = self.open();
        if open.guards.len() >= self.most {
            self.make_room(&mut open);
            return Err(Refused::Total);
        }
        if self.most_per_ip > 0 {
            let count = open.per_ip.entry(ip).or_default();
            if *count >= self.most_per_ip {
                return Err(Refused::PerIp);
            }
            *count += 1;
        }
        let id = open.next;
        open.next += 1;
        open.guards.insert(id, guard);
        gauge!(metric::HTTP_CONNECTIONS.name).increment(1);
        Ok(Seat { connections: self.clone(), id, ip })
    }

    /// Closes the quietest connections, a sixteenth of all, at most ten times a second: looking at all of them must not
    /// become the attack.
    fn make_room(&self, open: &mut Open) {
        if open.room_made.is_some_and(|at| at.elapsed() < PAUSE) {
            return;
        }
        open.room_made = Some(Instant::now());
        let quiet = |guard: &Arc<Guard>| Some((guard.quiet_ms().filter(|&ms| ms >= QUIET_MS)?, guard.clone()));
        let mut quiet: Vec<_> = open.guards.values().filter_map(quiet).collect();
        quiet.sort_unstable_by_key(|(ms, _)| std::cmp::Reverse(*ms));
        for (_, guard) in quiet.iter().take(self.most / 16 + 1) {
            guard.order(Order::Cut);
        }
    }

    pub(super) fn order_all(&self, order: Order) {
        // Woken outside the lock: a connection that ends takes it.
        let guards: Vec<_> = self.open().guards.values().cloned().collect();
        for guard in guards {
            guard.order(order);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.connections.open();
        open.guards.remove(&self.id);
        if let Some(count) = open.per_ip.get_mut(&self.ip) {
            *count -= 1;
            if *count == 0 {
                open.per_ip.remove(&self.ip);
            }
        }
        gauge!(metric::HTTP_CONNECTIONS.name).decrement(1);
    }
}
