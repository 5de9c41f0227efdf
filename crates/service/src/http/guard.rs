//! What is known of one connection: shared by its socket wrapper, its requests and the task that drives it.
//!
//! Times are ms on a clock of the process that starts at 1; 0 means "not so".

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use futures::task::AtomicWaker;
use millrace_contracts::Code;
use tokio::time::Instant;

use super::HttpLimits;

/// How long a connection whose last request was answered 503 or 429 is left before its next one is looked at. Clients that
/// come back before the least `Retry-After` would otherwise cost more than those that are served.
const PAUSE: Duration = Duration::from_secs(1);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What the server wants of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Order {
    /// Serve.
    Run,
    /// Finish what is under way, then close.
    Drain,
    /// Close now.
    Cut,
}

/// Why a connection's framing is given up; decides the last answer on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Fault {
    Slow = 1,
    LongTarget,
    LongHead,
}

/// What the clock says of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is due before then.
    Fine(Instant),
    /// A head has begun and does not end.
    SlowHead,
    /// Idle or not reading: close, with the reason for the metrics.
    Close(&'static str),
}

#[derive(Debug)]
pub(super) struct Guard {
    head_since: AtomicU64,
    idle_since: AtomicU64,
    blocked_since: AtomicU64,
    sent_away: AtomicU64,
    in_flight: AtomicU32,
    /// Number of requests so far: tells the socket wrapper that a head has ended.
    requests: AtomicU32,
    h2: AtomicBool,
    linger: AtomicBool,
    fault: AtomicU8,
    order: AtomicU8,
    pub(super) waker: AtomicWaker,
}

fn now() -> u64 {
    u64::try_from(START.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl Guard {
    pub(super) fn new() -> Self {
        Self {
            head_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(now()),
            blocked_since: AtomicU64::new(0),
            sent_away: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            h2: AtomicBool::new(false),
            linger: AtomicBool::new(false),
            fault: AtomicU8::new(0),
            order: AtomicU8::new(Order::Run as u8),
            waker: AtomicWaker::new(),
        }
    }

    /// A head has ended and its request begins.
    pub(super) fn begin(&self, h2: bool) {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.head_since.store(0, Ordering::Relaxed);
        if h2 {
            self.h2.store(true, Ordering::Relaxed);
        }
    }

    /// A request's answer has been handed over.
    pub(super) fn end(&self) {
        self.idle_since.store(now(), Ordering::Relaxed);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// A request was answered that there is no room for it now.
    pub(super) fn sent_away(&self) {
        self.sent_away.store(now(), Ordering::Relaxed);
    }

    /// How much longer the client is to be left alone, if it came back too soon.
    pub(super) fn too_soon(&self) -> Option<Duration> {
        let since = self.sent_away.load(Ordering::Relaxed);
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
        self.in_flight.load(Ordering::Relaxed) == 0 && !self.h2.load(Ordering::Relaxed)
    }

    pub(super) fn head_begins(&self) {
        self.head_since.store(now(), Ordering::Relaxed);
    }

    pub(super) fn blocked(&self, blocked: bool) {
        let since = self.blocked_since.load(Ordering::Relaxed);
        if blocked && since == 0 {
            self.blocked_since.store(now(), Ordering::Relaxed);
        } else if !blocked && since != 0 {
            self.blocked_since.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn set_fault(&self, fault: Fault) {
        self.linger();
        self.fault.store(fault as u8, Ordering::Relaxed);
    }

    pub(super) fn faulty(&self) -> bool {
        self.fault.load(Ordering::Relaxed) != 0
    }

    pub(super) fn fault_code(&self) -> Option<Code> {
        match self.fault.load(Ordering::Relaxed) {
            0 => None,
            n if n == Fault::Slow as u8 => Some(Code::RequestTimeout),
            n if n == Fault::LongTarget as u8 => Some(Code::UriTooLong),
            _ => Some(Code::HeadersTooLarge),
        }
    }

    /// The socket is to be read empty for a moment when it closes, or the reset would overtake the answer.
    pub(super) fn linger(&self) {
        self.linger.store(true, Ordering::Relaxed);
    }

    pub(super) fn lingers(&self) -> bool {
        self.linger.load(Ordering::Relaxed)
    }

    /// Gives an order, from any thread.
    pub(super) fn order(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::Release);
        self.waker.wake();
    }

    pub(super) fn ordered(&self) -> Order {
        match self.order.load(Ordering::Acquire) {
            0 => Order::Run,
            1 => Order::Drain,
            _ => Order::Cut,
        }
    }

    /// For how many ms nothing has been asked on the connection; `None` while a request is under way.
    pub(super) fn quiet_ms(&self) -> Option<u64> {
        let busy = self.in_flight.load(Ordering::Relaxed) > 0;
        (!busy).then(|| now().saturating_sub(self.idle_since.load(Ordering::Relaxed)))
    }

    /// What is due now, or when to ask again: within the shortest period, so that one which begins after the question is
    /// still seen in time.
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
        if self.in_flight.load(Ordering::Relaxed) == 0 {
            let since = self.head_since.load(Ordering::Relaxed);
            let quiet = self.idle_since.load(Ordering::Relaxed) + if self.requests() == 0 { head } else { idle };
            if since != 0 && !self.h2.load(Ordering::Relaxed) {
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
        Verdict::Fine(*START + Duration::from_millis(due - 1))
    }
}
