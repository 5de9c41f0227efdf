//! The last arrivals of a partition: number and checksum of each message.
//!
//! An arrival counts while it is among its client's last and among its partition's last records. Both windows are suffixes
//! of the log, so they are found again by reading that suffix.

use std::collections::VecDeque;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// What the arrivals remember of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Memory {
    /// Nothing.
    None,
    /// The same bytes.
    Same,
    /// Other bytes only.
    Other,
}

#[derive(Debug)]
pub(super) struct Arrivals {
    /// Arrivals of a client that count.
    client_window: u32,
    /// Records of the partition that count.
    partition_window: u64,
    entries: VecDeque<Arrival>,
    /// The serial number of the first entry.
    first: u64,
    /// The serial number of the newest arrival of each (client, number).
    newest: HashTable<u64>,
}

#[derive(Debug, Clone, Copy)]
struct Arrival {
    seq: u64,
    offset: u64,
    client: u32,
    crc32c: u32,
    /// Counts the client's arrivals; wraps.
    ordinal: u32,
    /// How many entries before this one the arrival of the same number stands; 0 for none.
    back: u32,
}

fn hash(client: u32, seq: u64) -> u64 {
    let product = u128::from(seq ^ u64::from(client).rotate_left(40)) * 0x9e37_79b9_7f4a_7c15;
    let (high, low) = (product >> 64, product & u128::from(u64::MAX));
    u64::try_from(high ^ low).unwrap_or_default()
}

impl Arrivals {
    pub(super) fn new(client_window: u32, partition_window: u64) -> Self {
        Self { client_window, partition_window, entries: VecDeque::new(), first: 0, newest: HashTable::new() }
    }

    /// Number of arrivals held.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The first offset that counts for the record at `offset`.
    pub(super) fn window_start(&self, offset: u64) -> u64 {
        offset.saturating_sub(self.partition_window)
    }

    fn at(&self, serial: u64) -> Option<&Arrival> {
        self.entries.get(usize::try_from(serial.checked_sub(self.first)?).ok()?)
    }

    /// What is remembered of a client's number when a message with `crc32c` arrives at `offset`; `ordinal` is the number of
    /// the client's arrivals so far.
    pub(super) fn recall(&self, client: u32, ordinal: u32, seq: u64, crc32c: u32, offset: u64) -> Memory {
        let is_same = |&serial: &u64| self.at(serial).is_some_and(|entry| entry.client == client && entry.seq == seq);
        let Some(&newest) = self.newest.find(hash(client, seq), is_same) else { return Memory::None };
        let (mut serial, mut memory) = (newest, Memory::None);
        while let Some(entry) = self.at(serial) {
            let counts =
                ordinal.wrapping_sub(entry.ordinal) <= self.client_window && entry.offset >= self.window_start(offset);
            if !counts {
                break;
            }
            if entry.crc32c == crc32c {
                return Memory::Same;
            }
            memory = Memory::Other;
            if entry.back == 0 {
                break;
            }
            serial -= u64::from(entry.back);
        }
        memory
    }

    /// Adds an arrival. Offsets rise.
    pub(super) fn push(&mut self, client: u32, ordinal: u32, seq: u64, crc32c: u32, offset: u64) {
        let Self { entries, first, newest, .. } = self;
        let serial = *first + entries.len() as u64;
        let at = |serial: u64| &entries[usize::try_from(serial - *first).unwrap_or(usize::MAX)];
        let is_same = |&serial: &u64| at(serial).client == client && at(serial).seq == seq;
        let rehash = |&serial: &u64| hash(at(serial).client, at(serial).seq);
        let back = match newest.entry(hash(client, seq), is_same, rehash) {
            Entry::Occupied(mut before) => {
                let before = std::mem::replace(before.get_mut(), serial);
                // So far back that it does not fit is out of every window.
                u32::try_from(serial - before).unwrap_or(0)
            }
            Entry::Vacant(none) => {
                none.insert(serial);
                0
            }
        };
        entries.push_back(Arrival { seq, offset, client, crc32c, ordinal, back });
    }

    /// Takes the newest arrival back; returns its client.
    pub(super) fn pop(&mut self) -> Option<u32> {
        let entry = *self.entries.back()?;
        let serial = self.first + self.entries.len() as u64 - 1;
        let before = serial - u64::from(entry.back);
        if let Ok(mut newest) = self.newest.find_entry(hash(entry.client, entry.seq), |&newest| newest == serial) {
            if entry.back > 0 && before >= self.first {
                *newest.get_mut() = before;
            } else {
                newest.remove();
            }
        }
        self.entries.pop_back();
        Some(entry.client)
    }

    /// Forgets the oldest arrival if it does not count for the record at `offset`; returns its client.
    pub(super) fn forget(&mut self, offset: u64) -> Option<u32> {
        let start = self.window_start(offset);
        let entry = *self.entries.front().filter(|entry| entry.offset < start)?;
        let serial = self.first;
        if let Ok(newest) = self.newest.find_entry(hash(entry.client, entry.seq), |&newest| newest == serial) {
            newest.remove();
        }
        self.entries.pop_front();
        self.first += 1;
        Some(entry.client)
    }
}
