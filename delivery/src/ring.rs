//! The newest messages of a partition, for all subscriptions of its topics, bounded by bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use millrace_contracts::topics::{Coverage, Message, Name};
use rapidhash::v3::rapidhash_v3;

/// A message as it was read, with what the walk needs at hand.
#[derive(Debug)]
pub(crate) struct Stored {
    /// Its offset in `messages`.
    pub(crate) offset: i64,
    /// Messages of the topic up to and including this one.
    pub(crate) ordinal: u64,
    pub(crate) published_ms: i64,
    pub(crate) key_hash: Option<u64>,
    /// The record's value.
    pub(crate) value: Box<[u8]>,
}

impl Stored {
    /// A stored message of a record; `None` if it waits for its delay or is no message.
    pub(crate) fn new(offset: u64, ordinal: u64, value: &[u8], message: &Message<'_>) -> Self {
        Self {
            offset: offset.cast_signed(),
            ordinal,
            published_ms: message.published_ms,
            key_hash: message.key.map(key_hash),
            value: value.into(),
        }
    }

    /// The message.
    pub(crate) fn message(&self) -> Option<Message<'_>> {
        Message::decode(&self.value).ok()
    }

    fn weight(&self) -> usize {
        // The entry itself, its two places in queues and the allocator's share.
        self.value.len() + 128
    }
}

/// Tells messages of one ordering key from those of others.
pub(crate) fn key_hash(key: &str) -> u64 {
    rapidhash_v3(key.as_bytes())
}

/// Messages in the order of the log, chained by topic.
#[derive(Debug)]
pub(crate) struct Ring {
    max_bytes: usize,
    bytes: usize,
    /// Every message from this offset on is here; those below were evicted, or never read.
    first: i64,
    /// The offset to be read next.
    next: i64,
    /// The last record that was read: its offset and its identity.
    last_record: Option<(i64, u64)>,
    order: VecDeque<(i64, Name)>,
    topics: HashMap<Name, VecDeque<Arc<Stored>>>,
}

impl Ring {
    /// A ring that is to be read from `next` on and holds messages from `first` on.
    pub(crate) fn new(first: i64, next: i64, max_bytes: usize) -> Self {
        let (order, topics) = (VecDeque::new(), HashMap::new());
        Self { max_bytes, bytes: 0, first, next, last_record: None, order, topics }
    }

    /// The lowest offset from which on everything is here.
    pub(crate) fn first(&self) -> i64 {
        self.first
    }

    /// The offset to be read next.
    pub(crate) fn next(&self) -> i64 {
        self.next
    }

    /// Everything below `next` was read.
    pub(crate) fn advance(&mut self, next: i64) {
        self.next = self.next.max(next);
    }

    /// A record was read; all below it were.
    pub(crate) fn read(&mut self, offset: i64, identity: u64) {
        self.last_record = Some((offset, identity));
        self.advance(offset + 1);
    }

    /// Up to where everything was read.
    pub(crate) fn covered(&self) -> Coverage {
        let offset = self.next - 1;
        let last_record = self.last_record.filter(|(at, _)| *at == offset).map(|(_, identity)| identity);
        Coverage { offset, last_record }
    }

    /// Takes in a topic's next message, and evicts the oldest ones past the bound. One below `first` stays behind the ring.
    pub(crate) fn push(&mut self, topic: &Name, stored: Arc<Stored>) {
        if stored.offset < self.first {
            return;
        }
        self.bytes += stored.weight();
        self.order.push_back((stored.offset, topic.clone()));
        self.topics.entry(topic.clone()).or_default().push_back(stored);
        while self.bytes > self.max_bytes
            && let Some((offset, topic)) = self.order.pop_front()
        {
            self.first = offset + 1;
            self.drop_oldest(&topic, offset);
        }
    }

    fn drop_oldest(&mut self, topic: &Name, offset: i64) {
        let Some(chain) = self.topics.get_mut(topic) else { return };
        while let Some(stored) = chain.pop_front_if(|stored| stored.offset <= offset) {
            self.bytes -= stored.weight();
        }
        if chain.is_empty() {
            self.topics.remove(topic);
        }
    }

    /// Forgets a deleted topic.
    pub(crate) fn forget(&mut self, topic: &Name) {
        if let Some(chain) = self.topics.remove(topic) {
            self.bytes -= chain.iter().map(|stored| stored.weight()).sum::<usize>();
        }
    }

    /// A topic's messages above an offset, ascending.
    pub(crate) fn after(&self, topic: &Name, offset: i64) -> impl Iterator<Item = &Arc<Stored>> {
        let chain = self.topics.get(topic);
        let from = chain.map_or(0, |chain| chain.partition_point(|stored| stored.offset <= offset));
        chain.into_iter().flat_map(move |chain| chain.range(from..))
    }

    /// A topic's message at an offset.
    pub(crate) fn get(&self, topic: &Name, offset: i64) -> Option<&Arc<Stored>> {
        self.after(topic, offset - 1).next().filter(|stored| stored.offset == offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(offset: i64, ordinal: u64) -> Arc<Stored> {
        Arc::new(Stored { offset, ordinal, published_ms: 0, key_hash: None, value: vec![0; 872].into() })
    }

    #[test]
    fn evicts_the_oldest_past_its_bound_and_reports_where_it_begins() {
        let (a, b) = (Name::parse("a").unwrap(), Name::parse("b").unwrap());
        let mut ring = Ring::new(10, 10, 4_000);
        for offset in 10..20 {
            ring.push(if offset % 2 == 0 { &a } else { &b }, stored(offset, 1));
            ring.advance(offset + 1);
        }
        assert_eq!((ring.first(), ring.next()), (16, 20));
        let offsets = |topic, after| ring.after(topic, after).map(|stored| stored.offset).collect::<Vec<_>>();
        assert_eq!(offsets(&a, 0), [16, 18]);
        assert_eq!(offsets(&b, 17), [19]);
        assert!(ring.get(&a, 16).is_some() && ring.get(&a, 17).is_none());
        ring.forget(&a);
        assert_eq!(ring.bytes, 2_000);
        for offset in 20..30 {
            ring.push(&b, stored(offset, 1));
        }
        assert_eq!(ring.first(), 26);
        assert!(ring.bytes <= 4_000);
    }
}
