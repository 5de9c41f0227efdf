//! The second copy of events that are sent twice: at the same time as the first, with the same ids, on a connection of its
//! own, to another service if there is one. A copy is sent once, however it ends.

use super::answer::Verdict;
use super::client::Connection;
use super::exchange::{Ended, exchange};
use super::render::Renderer;
use super::run::Plan;

pub(crate) struct Twin<'a> {
    plan: &'a Plan,
    renderer: &'a Renderer,
    connection: Option<Connection>,
    request: Vec<u8>,
    body: Vec<u8>,
    numbers: Vec<u64>,
}

/// What became of the copies: their numbers, ascending, and how their request ended.
pub(crate) struct Copies<'t>(Option<(&'t [u64], Ended)>);

impl<'a> Twin<'a> {
    pub(crate) fn new(plan: &'a Plan, renderer: &'a Renderer) -> Self {
        Self { plan, renderer, connection: None, request: Vec::new(), body: Vec::new(), numbers: Vec::new() }
    }

    /// Chooses which of these events are sent twice.
    pub(crate) fn choose(&mut self, numbers: impl Iterator<Item = u64>) {
        let plan = self.plan;
        self.numbers.clear();
        self.numbers.extend(numbers.filter(|&number| plan.shape.is_of(number, plan.duplicates)));
        if !self.numbers.is_empty() {
            self.renderer.events(
                &self.plan.shape,
                self.plan.batch > 1,
                &self.numbers,
                &mut self.body,
                &mut self.request,
            );
        }
    }

    /// Sends the copies of what was chosen, if anything was.
    pub(crate) async fn send(&mut self) -> Copies<'_> {
        if self.numbers.is_empty() {
            return Copies(None);
        }
        if self.connection.is_none() {
            self.connection = Connection::open(&self.renderer.authority, self.plan.timeout).await.ok();
        }
        let (events, batch) = (self.numbers.len(), self.plan.batch > 1);
        let ended = exchange(&mut self.connection, &self.request, events, batch, self.plan.timeout).await;
        Copies(Some((&self.numbers, ended)))
    }
}

impl Copies<'_> {
    /// What is known of the copy of an event, if it has one.
    pub(crate) fn verdict(&self, number: u64) -> Option<Verdict> {
        let (numbers, ended) = self.0.as_ref()?;
        numbers.binary_search(&number).ok().map(|index| ended.verdict(index))
    }

    /// Number of copies that got an answer.
    pub(crate) fn answered(&self) -> u64 {
        self.0.as_ref().filter(|(_, ended)| ended.answered.is_some()).map_or(0, |(numbers, _)| numbers.len() as u64)
    }
}
