//! The items of a batch, validated and encoded one after the other as their format reads them.

use millrace_contracts::{EventRef, Refusal};
use millrace_service::http::too_many_items;

use super::event::Window;
use super::event_fields::EventFields;
use super::event_id;
use crate::intake::Encoded;

/// Takes the items of one batch.
pub(super) struct Items<'a> {
    window: Window,
    key: Option<&'a str>,
    partitions: u32,
    max: usize,
    encoded: Encoded,
    checked: Vec<Result<(), Refusal>>,
    scratch: String,
}

impl<'a> Items<'a> {
    /// None yet, of at most `max`. `key` is the batch's idempotency key.
    pub(super) fn new(window: Window, key: Option<&'a str>, partitions: u32, max: usize) -> Self {
        Self { window, key, partitions, max, encoded: Encoded::default(), checked: Vec::new(), scratch: String::new() }
    }

    /// The time of arrival.
    pub(super) fn now(&self) -> i64 {
        self.window.now
    }

    /// The most items of a batch.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// The number of items so far.
    pub(super) fn len(&self) -> usize {
        self.checked.len()
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, more: usize) {
        self.checked.reserve_exact(more);
    }

    /// Adds the next item; one that is invalid does not affect the others.
    ///
    /// # Errors
    /// There are too many.
    pub(super) fn push(&mut self, fields: Result<EventFields<'_>, Refusal>) -> Result<(), Refusal> {
        if self.checked.len() == self.max {
            return Err(too_many_items(self.max));
        }
        let result = fields.and_then(|fields| self.encode(&fields));
        self.checked.push(result);
        Ok(())
    }

    fn encode(&mut self, fields: &EventFields<'_>) -> Result<(), Refusal> {
        let event = self.window.event(fields)?;
        let index = self.checked.len();
        let event_id = event_id::of_item(fields.event_id.as_deref(), self.key, index, &mut self.scratch)?;
        self.encoded.push(&EventRef { event_id, ..event }, self.partitions);
        Ok(())
    }

    /// The valid events, and the result of each item in order.
    pub(super) fn finish(self) -> (Encoded, Vec<Result<(), Refusal>>) {
        (self.encoded, self.checked)
    }
}
