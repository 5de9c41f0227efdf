//! One connection's part of a load: every event of its share is sent once, and resent only when the answer said that it
//! is not in the log.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::answer::{self, Verdict};
use super::client::{Connection, Lost};
use super::latency::Latencies;
use super::oracle::Oracle;
use super::render::Renderer;
use super::run::Plan;

/// The longest pause that a server's Retry-After is followed for.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The pause when the server names none, and between attempts to connect.
const PAUSE: Duration = Duration::from_millis(50);

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
    pub(crate) plan: &'a Plan,
    pub(crate) renderer: &'a Renderer,
    pub(crate) shared: &'a Shared,
    pub(crate) seen: &'a RefCell<Seen>,
    pub(crate) begin: Instant,
    connection: Option<Connection>,
    request: Vec<u8>,
    body: Vec<u8>,
    pending: Vec<u64>,
}

impl<'a> Sender<'a> {
    /// A sender that is not connected yet.
    pub(crate) fn new(
        plan: &'a Plan,
        renderer: &'a Renderer,
        shared: &'a Shared,
        seen: &'a RefCell<Seen>,
        begin: Instant,
    ) -> Self {
        let (connection, request, body, pending) = (None, Vec::new(), Vec::new(), Vec::new());
        Self { plan, renderer, shared, seen, begin, connection, request, body, pending }
    }

    /// Sends every `connections`-th request, beginning with the one of this number.
    pub(crate) async fn run(mut self, first: u64) {
        let (batch, events) = (self.plan.batch, self.plan.shape.events);
        for request in (first..events.div_ceil(batch)).step_by(self.plan.connections) {
            let start = request * batch;
            let due = self.plan.rate.map(|rate| self.begin + Duration::from_secs_f64(start as f64 / rate));
            if let Some(due) = due {
                sleep_until(due).await;
            }
            if self.shared.gave_up.load(Ordering::Relaxed) {
                return;
            }
            self.pending.clear();
            self.pending.extend(start..events.min(start + batch));
            let sent = self.pending.len() as u64;
            self.settle_all(due).await;
            self.shared.done.fetch_add(sent, Ordering::Relaxed);
        }
    }

    /// Sends what is pending until every outcome is settled.
    async fn settle_all(&mut self, due: Option<Instant>) {
        let patience_ends = Instant::now() + self.plan.patience;
        self.render();
        loop {
            if !self.connect(patience_ends).await {
                self.end_pending(Verdict::Rejected);
                return;
            }
            let Some(connection) = &mut self.connection else { continue };
            let sent_at = Instant::now();
            let (verdicts, pause) = match connection.exchange(&self.request, self.plan.timeout).await {
                Ok(answer) => {
                    let began = due.unwrap_or(sent_at).min(sent_at);
                    self.seen.borrow_mut().latencies.record(began.elapsed());
                    let listed = matches!(answer.status, 200 | 207) || (self.plan.batch > 1 && answer.status >= 400);
                    let verdicts = match listed.then(|| answer::of_batch(answer.body, self.pending.len())).flatten() {
                        Some(verdicts) => Verdicts::Each(verdicts),
                        // Some of a 207 is not stored, and without its list nobody knows what.
                        None if answer.status == 207 => Verdicts::All(Verdict::Unknown),
                        None => Verdicts::All(answer::of_request(answer.status, answer.body)),
                    };
                    let pause = answer.retry_after.map_or(PAUSE, Duration::from_secs).min(LONGEST_PAUSE);
                    if !answer.reusable {
                        self.connection = None;
                    }
                    (verdicts, pause)
                }
                Err(lost) => {
                    self.connection = None;
                    let verdict = match lost {
                        Lost::Unsent => Verdict::Later,
                        Lost::Unanswered => Verdict::Unknown,
                    };
                    (Verdicts::All(verdict), PAUSE)
                }
            };
            self.take(&verdicts);
            if self.pending.is_empty() {
                return;
            }
            if Instant::now() + pause >= patience_ends {
                self.shared.gave_up.store(true, Ordering::Relaxed);
                self.end_pending(Verdict::Rejected);
                return;
            }
            self.seen.borrow_mut().retried += self.pending.len() as u64;
            sleep(pause).await;
            self.render();
        }
    }

    /// Makes sure of a connection; `false` when patience ends first. Nothing was sent then.
    async fn connect(&mut self, patience_ends: Instant) -> bool {
        while self.connection.is_none() {
            let left = patience_ends.saturating_duration_since(Instant::now());
            if left.is_zero() || self.shared.gave_up.load(Ordering::Relaxed) {
                self.shared.gave_up.store(true, Ordering::Relaxed);
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
        match *self.pending {
            [number] if self.plan.batch == 1 => {
                self.renderer.single(self.plan.shape.event(number), &mut self.request);
            }
            _ => self.renderer.batch(&self.plan.shape, &self.pending, &mut self.body, &mut self.request),
        }
    }

    /// Books what is settled and keeps the rest pending.
    fn take(&mut self, verdicts: &Verdicts) {
        let mut index = 0;
        let mut seen = self.seen.borrow_mut();
        self.pending.retain(|&number| {
            let verdict = match verdicts {
                Verdicts::All(verdict) => *verdict,
                Verdicts::Each(verdicts) => verdicts[index],
            };
            index += 1;
            let event = self.plan.shape.event(number);
            match verdict {
                Verdict::Acknowledged => {
                    seen.acknowledged += 1;
                    seen.oracle.acknowledged(event);
                }
                Verdict::Unknown => {
                    seen.unknown += 1;
                    seen.oracle.unknown(event);
                }
                Verdict::Rejected => seen.refused += 1,
                Verdict::Later => return true,
            }
            false
        });
    }

    fn end_pending(&mut self, verdict: Verdict) {
        self.take(&Verdicts::All(verdict));
    }
}

enum Verdicts {
    All(Verdict),
    Each(Vec<Verdict>),
}
