//! One connection's part of a load: every event of its share is sent once, and sent again when the answer said that it is
//! not in the log; with ids, if the load is to do so, also when nobody knows.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::time::{Instant, sleep, sleep_until};

use super::answer::Verdict;
use super::client::Connection;
use super::exchange::{Ended, PAUSE, exchange};
use super::latency::Latencies;
use super::oracle::Oracle;
use super::render::Renderer;
use super::run::Plan;
use super::twin::{Copies, Twin};

/// What a part of the load saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// What the counts must be.
    pub(crate) oracle: Oracle,
    /// How long answers took; from when they were due, if the load is paced.
    pub(crate) latencies: Latencies,
    /// Events in the log.
    pub(crate) acknowledged: u64,
    /// Events that the server said are not in the log, for good.
    pub(crate) refused: u64,
    /// Events of unknown outcome.
    pub(crate) unknown: u64,
    /// Events sent again because the server said that they were not in the log, or because no connection took them.
    pub(crate) retried: u64,
    /// Events sent again because their outcome was unknown.
    pub(crate) resent: u64,
    /// Second copies of events that were answered.
    pub(crate) duplicated: u64,
}

/// What all parts of a load share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Events whose outcome is settled, for the progress bar.
    pub(crate) done: AtomicU64,
    /// Set when a connection ran out of patience: the others need not find that out one by one.
    pub(crate) gave_up: AtomicBool,
}

/// Sends one connection's share.
pub(crate) struct Sender<'a> {
    plan: &'a Plan,
    renderer: &'a Renderer,
    shared: &'a Shared,
    seen: &'a RefCell<Seen>,
    begin: Instant,
    connection: Option<Connection>,
    twin: Twin<'a>,
    request: Vec<u8>,
    body: Vec<u8>,
    numbers: Vec<u64>,
    pending: Vec<Pending>,
}

/// An event whose outcome is not settled.
struct Pending {
    number: u64,
    /// It may be in the log already.
    doubtful: bool,
}

impl<'a> Sender<'a> {
    /// A sender that is not connected yet; second copies go where `twin` says.
    pub(crate) fn new(
        plan: &'a Plan,
        renderer: &'a Renderer,
        twin: &'a Renderer,
        shared: &'a Shared,
        seen: &'a RefCell<Seen>,
        begin: Instant,
    ) -> Self {
        let (request, body, numbers, pending) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let twin = Twin::new(plan, twin);
        Self { plan, renderer, shared, seen, begin, connection: None, twin, request, body, numbers, pending }
    }

    /// Sends every `connections`-th request, beginning with the one of this number.
    pub(crate) async fn run(mut self, first: u64) {
        let (batch, events) = (self.plan.batch, self.plan.shape.events);
        for request in (first..events.div_ceil(batch)).step_by(self.plan.connections) {
            let start = request * batch;
            let due = self.plan.rate.map(|rate| self.begin + std::time::Duration::from_secs_f64(start as f64 / rate));
            if let Some(due) = due {
                sleep_until(due).await;
            }
            if self.shared.gave_up.load(Ordering::Relaxed) {
                return;
            }
            self.pending.clear();
            let numbers = start..events.min(start + batch);
            self.pending.extend(numbers.map(|number| Pending { number, doubtful: false }));
            let sent = self.pending.len() as u64;
            self.settle_all(due).await;
            self.shared.done.fetch_add(sent, Ordering::Relaxed);
        }
    }

    /// Sends what is pending until every outcome is settled.
    async fn settle_all(&mut self, due: Option<Instant>) {
        let patience_ends = Instant::now() + self.plan.patience;
        self.render();
        self.twin.choose(self.pending.iter().map(|pending| pending.number));
        loop {
            if !self.connect(patience_ends).await {
                return self.give_up();
            }
            let sent_at = Instant::now();
            let (events, batch, timeout) = (self.pending.len(), self.plan.batch > 1, self.plan.timeout);
            let first = exchange(&mut self.connection, &self.request, events, batch, timeout);
            let (ended, copies) = tokio::join!(first, self.twin.send());
            if let Some(answered) = ended.answered {
                self.seen.borrow_mut().latencies.record(answered - due.unwrap_or(sent_at).min(sent_at));
            }
            take(&mut self.pending, self.plan, &mut self.seen.borrow_mut(), &ended, &copies);
            if self.pending.is_empty() {
                return;
            }
            if Instant::now() + ended.pause >= patience_ends {
                return self.give_up();
            }
            sleep(ended.pause).await;
            self.render();
            self.twin.choose(std::iter::empty());
        }
    }

    /// Makes sure of a connection; `false` when patience ends first. Nothing was sent then.
    async fn connect(&mut self, patience_ends: Instant) -> bool {
        while self.connection.is_none() {
            let left = patience_ends.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shared.gave_up.load(Ordering::Relaxed) {
                return false;
            }
            match Connection::open(&self.renderer.authority, left.min(self.plan.timeout)).await {
                Ok(connection) => self.connection = Some(connection),
                Err(_) => sleep(PAUSE).await,
            }
        }
        true
    }

    fn render(&mut self) {
        self.numbers.clear();
        self.numbers.extend(self.pending.iter().map(|pending| pending.number));
        let (shape, batch) = (&self.plan.shape, self.plan.batch > 1);
        self.renderer.events(shape, batch, &self.numbers, &mut self.body, &mut self.request);
    }

    /// Books what is still pending when patience has ended, and tells the others.
    fn give_up(&mut self) {
        self.shared.gave_up.store(true, Ordering::Relaxed);
        let mut seen = self.seen.borrow_mut();
        for pending in self.pending.drain(..) {
            seen.book(self.plan, pending.number, if pending.doubtful { Verdict::Unknown } else { Verdict::Rejected });
        }
    }
}

/// Books what is settled and keeps the rest pending.
fn take(pending: &mut Vec<Pending>, plan: &Plan, seen: &mut Seen, ended: &Ended, copies: &Copies<'_>) {
    let mut index = 0;
    seen.duplicated += copies.answered();
    pending.retain_mut(|pending| {
        let verdicts = [Some(ended.verdict(index)), copies.verdict(pending.number)];
        index += 1;
        let any = |verdict| verdicts.contains(&Some(verdict));
        pending.doubtful |= any(Verdict::Unknown);
        let settled = if any(Verdict::Acknowledged) {
            Verdict::Acknowledged
        } else if any(Verdict::Unknown) && plan.resend_unknown {
            seen.resent += 1;
            return true;
        } else if any(Verdict::Unknown) || (pending.doubtful && any(Verdict::Rejected)) {
            Verdict::Unknown
        } else if verdicts[0] == Some(Verdict::Rejected) {
            Verdict::Rejected
        } else {
            seen.retried += 1;
            return true;
        };
        seen.book(plan, pending.number, settled);
        false
    });
}

impl Seen {
    /// Books an event that is settled, once, however often it was sent.
    fn book(&mut self, plan: &Plan, number: u64, verdict: Verdict) {
        let event = plan.shape.event(number);
        match verdict {
            Verdict::Acknowledged => {
                self.acknowledged += 1;
                self.oracle.acknowledged(event);
            }
            Verdict::Unknown => {
                self.unknown += 1;
                self.oracle.unknown(event);
            }
            Verdict::Rejected | Verdict::Later => self.refused += 1,
        }
    }
}
