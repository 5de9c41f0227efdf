//! Duplicates: the second copy of some events, sent at the same time as the first, with the same ids, over a connection of its
//! own, to another service if there are several. A duplicate is sent once, whatever its outcome.

use super::exchange::{Exchange, exchange};
use super::plan::Plan;
use super::render::Renderer;
use crate::client::{Connection, Request, Verdict};

/// Sends the duplicates of one connection.
pub(crate) struct Duplicator<'a> {
    plan: &'a Plan,
    renderer: &'a Renderer,
    connection: Option<Connection>,
    request: Option<Request>,
    numbers: Vec<u64>,
}

/// The result of the duplicates of a request: their numbers, ascending, and the exchange.
pub(crate) struct Duplicates<'n>(Option<(&'n [u64], Exchange)>);

impl<'a> Duplicator<'a> {
    /// Not connected yet.
    pub(crate) fn new(plan: &'a Plan, renderer: &'a Renderer) -> Self {
        Self { plan, renderer, connection: None, request: None, numbers: Vec::new() }
    }

    /// Chooses which of these events are sent twice.
    pub(crate) fn choose(&mut self, numbers: impl Iterator<Item = u64>) {
        let plan = self.plan;
        self.numbers.clear();
        self.numbers.extend(numbers.filter(|&number| plan.shape.is_of(number, plan.duplicates)));
        if !self.numbers.is_empty() {
            self.request = Some(self.renderer.request(&plan.shape, plan.batch > 1, &self.numbers));
        }
    }

    /// Sends the chosen events, if there are any.
    pub(crate) async fn send(&mut self) -> Duplicates<'_> {
        if self.numbers.is_empty() {
            return Duplicates(None);
        }
        if self.connection.is_none() {
            self.connection = self.renderer.target.open(self.plan.timeout).await.ok();
        }
        let (events, batch) = (self.numbers.len(), self.plan.batch > 1);
        let exchange = exchange(&mut self.connection, self.request.take(), events, batch, self.plan.timeout).await;
        Duplicates(Some((&self.numbers, exchange)))
    }
}

impl Duplicates<'_> {
    /// The verdict on the duplicate of an event, if it has one.
    pub(crate) fn verdict(&self, number: u64) -> Option<Verdict> {
        let (numbers, exchange) = self.0.as_ref()?;
        numbers.binary_search(&number).ok().map(|index| exchange.verdict(index))
    }

    /// Number of duplicates with a response.
    pub(crate) fn answered(&self) -> u64 {
        let answered = self.0.as_ref().filter(|(_, exchange)| exchange.answered.is_some());
        answered.map_or(0, |(numbers, _)| numbers.len() as u64)
    }
}
