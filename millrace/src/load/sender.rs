//! One connection's part of a load: sends every event of its share, and again after a response that it is not in the log; with
//! ids, if the load resends unknown outcomes, also after an unknown outcome.

use std::cell::RefCell;
use std::sync::atomic::Ordering;

use tokio::time::{Instant, sleep, sleep_until};

use super::duplicate::{Duplicates, Duplicator};
use super::exchange::{Exchange, PAUSE, exchange};
use super::plan::Plan;
use super::progress::Progress;
use super::render::Renderer;
use super::tally::Tally;
use crate::client::{Connection, Request, Verdict};

/// Sends one connection's share.
pub(crate) struct Sender<'a> {
    plan: &'a Plan,
    renderer: &'a Renderer,
    progress: &'a Progress,
    tally: &'a RefCell<Tally>,
    begin: Instant,
    connection: Option<Connection>,
    duplicator: Duplicator<'a>,
    numbers: Vec<u64>,
    pending: Vec<Pending>,
}

/// An event without a final outcome.
struct Pending {
    number: u64,
    /// An earlier request left its outcome unknown.
    doubtful: bool,
}

impl<'a> Sender<'a> {
    /// Not connected yet; `duplicates` renders for the service that duplicates go to.
    pub(crate) fn new(
        plan: &'a Plan,
        renderer: &'a Renderer,
        duplicates: &'a Renderer,
        progress: &'a Progress,
        tally: &'a RefCell<Tally>,
        begin: Instant,
    ) -> Self {
        let duplicator = Duplicator::new(plan, duplicates);
        let (numbers, pending) = (Vec::new(), Vec::new());
        Self { plan, renderer, progress, tally, begin, connection: None, duplicator, numbers, pending }
    }

    /// Sends every `connections`-th request, starting with the one of this number.
    pub(crate) async fn run(mut self, first: u64) {
        let (batch, events) = (self.plan.batch, self.plan.shape.events);
        for request in (first..events.div_ceil(batch)).step_by(self.plan.connections) {
            let start = request * batch;
            let due = self.plan.shape.due(start).map(|due| self.begin + due);
            if let Some(due) = due {
                self.progress.stop.run_until_cancelled(sleep_until(due)).await;
            }
            if self.progress.stop.is_cancelled() {
                return;
            }
            self.pending.clear();
            let numbers = start..events.min(start + batch);
            self.pending.extend(numbers.map(|number| Pending { number, doubtful: false }));
            let sent = self.pending.len() as u64;
            self.settle_all(due).await;
            self.progress.done.fetch_add(sent, Ordering::Relaxed);
        }
    }

    /// Sends the pending events until each has a final outcome.
    async fn settle_all(&mut self, due: Option<Instant>) {
        let deadline = Instant::now() + self.plan.patience;
        let mut request = self.render();
        self.duplicator.choose(self.pending.iter().map(|pending| pending.number));
        loop {
            if !self.connect(deadline).await {
                return self.give_up();
            }
            let sent_at = Instant::now();
            let (events, batch, timeout) = (self.pending.len(), self.plan.batch > 1, self.plan.timeout);
            let first = exchange(&mut self.connection, Some(request), events, batch, timeout);
            let (exchange, duplicates) = tokio::join!(first, self.duplicator.send());
            if let Some(answered) = exchange.answered {
                self.tally.borrow_mut().latencies.record(answered - due.unwrap_or(sent_at).min(sent_at));
            }
            settle(&mut self.pending, self.plan, &mut self.tally.borrow_mut(), &exchange, &duplicates);
            if self.pending.is_empty() {
                return;
            }
            if Instant::now() + exchange.pause >= deadline {
                return self.give_up();
            }
            sleep(exchange.pause).await;
            request = self.render();
            self.duplicator.choose(std::iter::empty());
        }
    }

    /// Connects unless connected; `false` if the deadline passes first. Nothing is sent in that case.
    async fn connect(&mut self, deadline: Instant) -> bool {
        while self.connection.is_none() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.progress.stop.is_cancelled() {
                return false;
            }
            match self.renderer.target.open(left.min(self.plan.timeout)).await {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => {
                    self.progress.failed_to_connect(format!("{}: {error}", self.renderer.target));
                    sleep(PAUSE).await;
                }
            }
        }
        true
    }

    fn render(&mut self) -> Request {
        self.numbers.clear();
        self.numbers.extend(self.pending.iter().map(|pending| pending.number));
        self.renderer.request(&self.plan.shape, self.plan.batch > 1, &self.numbers)
    }

    /// Records the pending events at the end of the patience, and stops the other connections.
    fn give_up(&mut self) {
        self.progress.stop.cancel();
        let mut tally = self.tally.borrow_mut();
        for pending in self.pending.drain(..) {
            let verdict = if pending.doubtful { Verdict::Unknown } else { Verdict::Rejected };
            tally.record(&self.plan.shape, pending.number, verdict);
        }
    }
}

/// Records final outcomes; the other events stay pending.
fn settle(
    pending: &mut Vec<Pending>,
    plan: &Plan,
    tally: &mut Tally,
    exchange: &Exchange,
    duplicates: &Duplicates<'_>,
) {
    let mut index = 0;
    tally.duplicated += duplicates.answered();
    pending.retain_mut(|pending| {
        let verdicts = [Some(exchange.verdict(index)), duplicates.verdict(pending.number)];
        index += 1;
        let any = |verdict| verdicts.contains(&Some(verdict));
        pending.doubtful |= any(Verdict::Unknown);
        let last = if any(Verdict::Acknowledged) {
            Verdict::Acknowledged
        } else if any(Verdict::Unknown) && plan.resend_unknown {
            tally.resent += 1;
            return true;
        } else if any(Verdict::Unknown) || (pending.doubtful && any(Verdict::Rejected)) {
            Verdict::Unknown
        } else if verdicts[0] == Some(Verdict::Rejected) {
            Verdict::Rejected
        } else {
            tally.retried += 1;
            return true;
        };
        tally.record(&plan.shape, pending.number, last);
        false
    });
}
