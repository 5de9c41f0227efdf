//! The numbers of appended records, in a header.

use std::sync::{Mutex, PoisonError};

use millrace_contracts::Topic;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Header, Headers, OwnedHeaders};

use crate::producers::RecordNumber;
use crate::topics::{DeclaredTopic, Topics};

/// The header's name. Short: every record has it.
const HEADER: &str = "mr-n";

/// Numbers the records of one producer.
pub(super) struct Numbers(Vec<(&'static str, Vec<Mutex<RecordNumber>>)>);

impl Numbers {
    pub(super) fn new(topics: &Topics) -> Self {
        // An id for each partition: a header stays unique if records of several partitions come together in one.
        let first = |_| Mutex::new(RecordNumber { producer: uuid::Uuid::new_v4().as_u64_pair().1, number: 0 });
        let of = |declared: &DeclaredTopic| (declared.topic.name, (0..declared.partitions).map(first).collect());
        Self(topics.iter().map(of).collect())
    }

    /// Enqueues a record with the next number of its partition. The lock makes the order of numbers that of the queue; a
    /// record that is not enqueued uses no number. A partition that no topic has gets none.
    pub(super) fn enqueue<E>(
        &self,
        topic: Topic,
        partition: u32,
        enqueue: impl FnOnce(Option<OwnedHeaders>) -> Result<(), E>,
    ) -> Result<(), E> {
        let numbers = self.0.iter().find(|(name, _)| *name == topic.name);
        let Some(next) = numbers.and_then(|(_, partitions)| partitions.get(partition as usize)) else {
            return enqueue(None);
        };
        let mut next = next.lock().unwrap_or_else(PoisonError::into_inner);
        let number = next.to_bytes();
        let headers = OwnedHeaders::new_with_capacity(1).insert(Header { key: HEADER, value: Some(&number) });
        enqueue(Some(headers))?;
        next.number += 1;
        Ok(())
    }
}

/// The number of a record that was read; `None` if its producer does not number. For those only who drop repeats: librdkafka
/// decodes the headers of a message when they are first asked for, into memory of their own, which costs as much as a third of
/// counting the record.
pub(super) fn number_of(message: &BorrowedMessage<'_>) -> Option<RecordNumber> {
    let header = message.headers()?.iter().find(|header| header.key == HEADER)?;
    RecordNumber::from_bytes(header.value?)
}
