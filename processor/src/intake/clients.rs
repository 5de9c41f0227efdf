//! The clients of a partition: what is remembered of each, in slots that are used again.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;
use millrace_contracts::Sender;

use super::ranges::Ranges;

/// A client within one number space.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) principal: Box<str>,
    pub(super) id: Box<str>,
    pub(super) epoch: Option<u64>,
    /// Counts its arrivals; wraps.
    pub(super) ordinal: u32,
    /// Its arrivals that are held.
    pub(super) held: u32,
    pub(super) memory: ClientMemory,
    /// The log time of its newest entry in the queue of those to be forgotten.
    pub(super) queued: i64,
    /// The step in which it was saved for an undo.
    pub(super) saved_in: u64,
}

/// What one step may change of a client, apart from its arrivals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClientMemory {
    /// Numbers used; empty without an epoch.
    pub(super) ranges: Ranges,
    /// The log time of its last record.
    pub(super) log_time: i64,
    /// The highest number, to count gaps; 0 if not known.
    pub(super) highest: u64,
}

#[derive(Debug, Default)]
pub(super) struct Clients {
    slots: Vec<Option<Client>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    /// Clients choose their ids: the hash is not for them to predict.
    hasher: RandomState,
    /// Slots that may have nothing to remember any more.
    candidates: Vec<u32>,
    /// Slots whose ranges are to be looked at, by the log time they were queued at.
    pub(super) queue: VecDeque<(i64, u32)>,
}

impl Client {
    pub(super) fn sender(&self) -> Sender<'_> {
        Sender { principal: &self.principal, client: &self.id, epoch: self.epoch }
    }
}

impl Clients {
    pub(super) fn get(&self, slot: u32) -> &Client {
        self.slots[slot as usize].as_ref().expect("a slot in use")
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> &mut Client {
        self.slots[slot as usize].as_mut().expect("a slot in use")
    }

    /// Whether the slot is in use; entries of the queue may outlive their client.
    pub(super) fn is_used(&self, slot: u32) -> bool {
        self.slots.get(slot as usize).is_some_and(Option::is_some)
    }

    /// The slot of a sender, a new one if there is none.
    pub(super) fn slot(&mut self, sender: Sender<'_>) -> u32 {
        let (hash, slots) = (self.hasher.hash_one(sender), &self.slots);
        let of = |slot: u32| slots[slot as usize].as_ref().expect("the index holds slots in use").sender();
        if let Some(&slot) = self.index.find(hash, |&slot| of(slot) == sender) {
            return slot;
        }
        let client = Client {
            principal: sender.principal.into(),
            id: sender.client.into(),
            epoch: sender.epoch,
            ordinal: 0,
            held: 0,
            memory: ClientMemory { ranges: Ranges::default(), log_time: i64::MIN, highest: 0 },
            queued: i64::MIN,
            saved_in: 0,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            u32::try_from(self.slots.len() - 1).expect("fewer clients than memory")
        });
        self.slots[slot as usize] = Some(client);
        let (slots, hasher) = (&self.slots, &self.hasher);
        let of = |slot: u32| slots[slot as usize].as_ref().expect("the index holds slots in use").sender();
        self.index.insert_unique(hash, slot, |&slot| hasher.hash_one(of(slot)));
        self.candidates.push(slot);
        slot
    }

    /// Looks at the slot when slots are freed next.
    pub(super) fn may_be_free(&mut self, slot: u32) {
        self.candidates.push(slot);
    }

    /// Frees slots that have nothing to remember.
    pub(super) fn free(&mut self) {
        for slot in std::mem::take(&mut self.candidates) {
            let Some(client) = &self.slots[slot as usize] else { continue };
            if client.held > 0 || !client.memory.ranges.is_empty() {
                continue;
            }
            if let Ok(entry) = self.index.find_entry(self.hasher.hash_one(client.sender()), |&other| other == slot) {
                entry.remove();
            }
            self.slots[slot as usize] = None;
            self.free.push(slot);
        }
    }

    /// Number of clients.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }
}
