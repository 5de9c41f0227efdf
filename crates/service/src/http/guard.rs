//! The state of one connection: shared by its socket, its requests and the task that drives it.
//!
//! Times are ms on a clock of the process that starts at 1; 0 means "none".

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::HttpLimits;
use super::linger::Lingering;
use crate::net::{Connection, OrderCell};

/// How long a connection whose last answer was 503 or 429 waits before its next request is handled. Clients that retry
/// before the shortest `Retry-After` would otherwise cost more than those that are served.
const PAUSE: Duration = Duration::from_secs(1);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What the timeouts require of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is due before then.
    Fine(Instant),
    /// A head has begun and does not end.
    SlowHead,
    /// Idle, or not reading: close, with the reason for the metrics.
    Close(&'static str),
}

#[derive(Debug)]
pub(super) struct Guard {
    head_since: AtomicU64,
    idle_since: AtomicU64,
    blocked_since: AtomicU64,
    refused_at: AtomicU64,
    in_flight: AtomicU32,
    /// Number of requests so far.
    requests: AtomicU32,
    /// An answer was handed to hyper, and its last byte is not flushed.
    unsent: AtomicBool,
    http2: AtomicBool,
    linger: AtomicBool,
    head_timed_out: AtomicBool,
    /// The answer of HTTP/1 under way has no end of its own.
    endless: AtomicBool,
    lingering: Mutex<Option<Lingering>>,
    order: OrderCell,
}

pub(super) fn now() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
}

/// The moment of a time of this clock.
pub(super) fn instant(ms: u64) -> Instant {
    *START + Duration::from_millis(ms.saturating_sub(1))
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Connection for Guard {
    fn order(&self) -> &OrderCell {
        &self.order
    }

    fn idle(&self) -> Option<Duration> {
        let busy = self.in_flight.load(Ordering::Relaxed) > 0 || self.is_blocked();
        (!busy).then(|| Duration::from_millis(now().saturating_sub(self.idle_since.load(Ordering::Relaxed))))
    }
}

impl Guard {
    pub(super) fn new() -> Self {
        Self {
            head_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(now()),
            blocked_since: AtomicU64::new(0),
            refused_at: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            unsent: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            linger: AtomicBool::new(false),
            head_timed_out: AtomicBool::new(false),
            endless: AtomicBool::new(false),
            lingering: Mutex::default(),
            order: OrderCell::default(),
        }
    }

    /// The connection speaks HTTP/2.
    pub(super) fn set_http2(&self) {
        self.http2.store(true, Ordering::Relaxed);
    }

    /// A head has ended and its request begins.
    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
    }

    /// The answer to a request is handed to hyper.
    pub(super) fn answer(&self) {
        self.unsent.store(true, Ordering::Relaxed);
    }

    /// The body of an answer has been handed over to its end.
    pub(super) fn end(&self) {
        self.idle_since.store(now(), Ordering::Relaxed);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.endless.store(false, Ordering::Relaxed);
    }

    /// The answer under way ends when its client leaves.
    pub(super) fn set_endless(&self) {
        self.endless.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_endless(&self) -> bool {
        self.endless.load(Ordering::Relaxed)
    }

    /// Every byte that hyper wrote is on its way.
    pub(super) fn flushed(&self) {
        if self.in_flight.load(Ordering::Relaxed) == 0 {
            self.unsent.store(false, Ordering::Relaxed);
        }
    }

    /// Whether no request is under way and no answer is unsent: what hyper writes now, it made up by itself.
    pub(super) fn nothing_to_send(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0 && !self.unsent.load(Ordering::Relaxed)
    }

    /// The answer to a request was 503 or 429.
    pub(super) fn refuse(&self) {
        self.refused_at.store(now(), Ordering::Relaxed);
    }

    /// How much longer the next request waits after a refusal; `None` if it need not.
    pub(super) fn pause(&self) -> Option<Duration> {
        let since = self.refused_at.load(Ordering::Relaxed);
        if since == 0 {
            return None;
        }
        PAUSE.checked_sub(Duration::from_millis(now().saturating_sub(since))).filter(|left| !left.is_zero())
    }

    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Whether bytes that arrive now belong to a head of HTTP/1.
    pub(super) fn awaits_head(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0 && !self.http2.load(Ordering::Relaxed)
    }

    /// The first byte of a head has arrived.
    pub(super) fn begin_head(&self) {
        self.head_since.store(now(), Ordering::Relaxed);
    }

    /// Whether bytes wait for the client to read.
    pub(super) fn blocked(&self, blocked: bool) {
        let since = self.blocked_since.load(Ordering::Relaxed);
        if blocked && since == 0 {
            self.blocked_since.store(now(), Ordering::Relaxed);
        } else if !blocked && since != 0 {
            self.idle_since.store(now(), Ordering::Relaxed);
            self.blocked_since.store(0, Ordering::Relaxed);
        }
    }

    fn is_blocked(&self) -> bool {
        self.blocked_since.load(Ordering::Relaxed) != 0
    }

    /// The head under way took too long: its connection ends with 408.
    pub(super) fn time_out_head(&self) {
        self.linger();
        self.head_timed_out.store(true, Ordering::Relaxed);
    }

    pub(super) fn head_timed_out(&self) -> bool {
        self.head_timed_out.load(Ordering::Relaxed)
    }

    /// The client may still be sending when the connection ends.
    pub(super) fn linger(&self) {
        self.linger.store(true, Ordering::Relaxed);
    }

    pub(super) fn lingers(&self) -> bool {
        self.linger.load(Ordering::Relaxed)
    }

    /// The socket, whose connection has ended.
    pub(super) fn leave(&self, lingering: Lingering) {
        *self.lingering.lock().unwrap_or_else(PoisonError::into_inner) = Some(lingering);
    }

    /// The socket that the connection left.
    pub(super) fn take_lingering(&self) -> Option<Lingering> {
        self.lingering.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What is due now, or when to check again: within the shortest timeout, so that a wait that begins after this check
    /// still ends in time.
    pub(super) fn verdict(&self, limits: &HttpLimits) -> Verdict {
        let now = now();
        let (head, idle, write) = (ms(limits.head_timeout.0), ms(limits.idle_timeout.0), ms(limits.write_timeout.0));
        let mut due = now + head.min(idle).min(write);
        let blocked = self.blocked_since.load(Ordering::Relaxed);
        if blocked != 0 {
            if now >= blocked + write {
                return Verdict::Close("write");
            }
            due = due.min(blocked + write);
        }
        if self.in_flight.load(Ordering::Relaxed) == 0 && !self.is_blocked() {
            let since = self.head_since.load(Ordering::Relaxed);
            let quiet = self.idle_since.load(Ordering::Relaxed) + if self.requests() == 0 { head } else { idle };
            if since != 0 && !self.http2.load(Ordering::Relaxed) {
                if now >= since + head {
                    return Verdict::SlowHead;
                }
                due = due.min(since + head);
            } else if now >= quiet {
                return Verdict::Close("idle");
            } else {
                due = due.min(quiet);
            }
        }
        Verdict::Fine(instant(due))
    }
}
