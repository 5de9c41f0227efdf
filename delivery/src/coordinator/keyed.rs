//! Publishing once per idempotency key, and publishes that wait until the ring has read their message.

use std::collections::{HashMap, HashSet, VecDeque};

use millrace_contracts::topics::{Message, Name};
use rapidhash::v3::rapidhash_v3;
use tokio::sync::oneshot;

/// For how long a key is remembered, in ms of the log's time.
pub(crate) const WINDOW_MS: i64 = 600_000;
/// Most keys of a partition.
pub(super) const MAX_KEYS: usize = 1_000_000;

/// A message that was published under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct First {
    pub(crate) offset: u64,
    pub(crate) id: String,
    pub(crate) published_ms: i64,
    hash: u64,
}

/// What is known of a key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Claim {
    /// Nobody published under it: the caller does, and ends with [`Keyed::release`].
    Free,
    /// Another publish under it is under way.
    UnderWay,
    /// The same message was published.
    Duplicate(First),
    /// Another message was published.
    Reused,
}

/// A message with a key, as it was read.
#[derive(Debug)]
pub(crate) struct Entry {
    log_ms: i64,
    key: (Name, String),
    first: First,
}

impl Entry {
    /// `None` for a message without a key.
    pub(crate) fn of(topic: &Name, offset: u64, log_ms: i64, message: &Message<'_>) -> Option<Self> {
        let key = (topic.clone(), message.idempotency_key?.to_owned());
        let (id, hash) = (message.id.to_owned(), content_hash(message));
        Some(Self { log_ms, key, first: First { offset, id, published_ms: message.published_ms, hash } })
    }
}

/// The keys of a partition.
#[derive(Debug, Default)]
pub(crate) struct Keyed {
    /// Whether the window before what the ring reads is known.
    complete: bool,
    known: HashMap<(Name, String), First>,
    order: VecDeque<(i64, (Name, String))>,
    under_way: HashSet<(Name, String)>,
    /// Publishes by message id.
    awaited: HashMap<String, oneshot::Sender<u64>>,
}

/// Hash of what makes two messages the same.
pub(crate) fn content_hash(message: &Message<'_>) -> u64 {
    let mut bytes = Vec::with_capacity(message.body.len() + 256);
    let mut put = |part: &[u8]| {
        bytes.extend((part.len() as u64).to_be_bytes());
        bytes.extend(part);
    };
    put(message.content_type.as_bytes());
    put(message.key.unwrap_or_default().as_bytes());
    for (name, value) in &message.attributes {
        put(name.as_bytes());
        put(value.as_bytes());
    }
    put(message.body);
    rapidhash_v3(&bytes)
}

impl Keyed {
    /// Claims a key for a publish.
    pub(crate) fn claim(&mut self, topic: &Name, key: &str, hash: u64) -> Claim {
        let entry = (topic.clone(), key.to_owned());
        if let Some(first) = self.known.get(&entry) {
            return if first.hash == hash { Claim::Duplicate(first.clone()) } else { Claim::Reused };
        }
        if self.under_way.insert(entry) { Claim::Free } else { Claim::UnderWay }
    }

    /// The publish of a claim ended, one way or the other.
    pub(crate) fn release(&mut self, topic: &Name, key: &str) {
        self.under_way.remove(&(topic.clone(), key.to_owned()));
    }

    /// The offset of a message with this id, once the ring has read it.
    pub(crate) fn await_message(&mut self, id: &str) -> oneshot::Receiver<u64> {
        let (reply, offset) = oneshot::channel();
        self.awaited.retain(|_, reply| !reply.is_closed());
        self.awaited.insert(id.to_owned(), reply);
        offset
    }

    /// Whether a key that is not known was not used within the window.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The window before what the ring has read, the oldest message first.
    pub(crate) fn complete(&mut self, older: VecDeque<Entry>) {
        for Entry { log_ms, key, first } in older.into_iter().rev() {
            if self.order.len() >= MAX_KEYS {
                break;
            }
            self.order.push_front((log_ms, key.clone()));
            self.known.insert(key, first);
        }
        self.complete = true;
    }

    /// The ring has read a message.
    pub(crate) fn read(&mut self, topic: &Name, offset: u64, log_ms: i64, message: &Message<'_>) {
        if let Some(Entry { key, first, .. }) = Entry::of(topic, offset, log_ms, message) {
            self.known.entry(key.clone()).or_insert(first);
            self.order.push_back((log_ms, key));
        }
        if let Some(reply) = self.awaited.remove(message.id) {
            let _ = reply.send(offset);
        }
        while let Some((ms, _)) = self.order.front()
            && (*ms + WINDOW_MS < log_ms || self.order.len() > MAX_KEYS)
        {
            if let Some((_, entry)) = self.order.pop_front() {
                self.known.remove(&entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_contracts::topics::Delay;

    use super::*;

    fn message<'a>(id: &'a str, key: &'a str, body: &'a [u8]) -> Message<'a> {
        Message {
            topic_id: 0,
            published_ms: 5,
            id,
            delay: Delay::None,
            key: None,
            idempotency_key: Some(key),
            nonce: None,
            content_type: "text/plain",
            attributes: Vec::new(),
            body,
        }
    }

    /// It is read beside the ring, and perhaps after it.
    #[test]
    fn the_window_before_the_ring_comes_first() {
        let topic = Name::parse("t").unwrap();
        let mut keyed = Keyed::default();
        keyed.read(&topic, 9, 9_000, &message("m9", "again", b"a"));
        let older = [(1_u64, "old"), (2, "again")].map(|(offset, key)| {
            let message = message("m", key, b"a");
            Entry::of(&topic, offset, offset.cast_signed() * 1_000, &message).unwrap()
        });
        assert!(!keyed.is_complete());
        keyed.complete(older.into());
        assert!(keyed.is_complete());
        let hash = content_hash(&message("m", "any", b"a"));
        for (key, at) in [("old", 1), ("again", 2)] {
            assert!(matches!(keyed.claim(&topic, key, hash), Claim::Duplicate(First { offset, .. }) if offset == at));
        }
        keyed.read(&topic, 10, 1_001 + WINDOW_MS, &message("m10", "new", b""));
        assert_eq!(keyed.claim(&topic, "old", hash), Claim::Free, "the oldest is forgotten first");
        assert!(matches!(keyed.claim(&topic, "again", hash), Claim::Duplicate(_)));
    }

    #[test]
    fn a_key_is_good_for_one_message_within_the_window() {
        let topic = Name::parse("t").unwrap();
        let mut keyed = Keyed::default();
        let first = message("m1", "k", b"a");
        let hash = content_hash(&first);
        assert_eq!(keyed.claim(&topic, "k", hash), Claim::Free);
        assert_eq!(keyed.claim(&topic, "k", hash), Claim::UnderWay);
        let mut offset = keyed.await_message("m1");
        keyed.read(&topic, 7, 1_000, &first);
        keyed.release(&topic, "k");
        assert_eq!(offset.try_recv(), Ok(7));
        assert!(matches!(keyed.claim(&topic, "k", hash), Claim::Duplicate(First { offset: 7, .. })));
        assert_eq!(keyed.claim(&topic, "k", content_hash(&message("m2", "k", b"b"))), Claim::Reused);
        keyed.read(&topic, 8, 1_001 + WINDOW_MS, &message("m3", "other", b""));
        assert_eq!(keyed.claim(&topic, "k", hash), Claim::Free);
    }
}
