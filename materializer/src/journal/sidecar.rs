//! The sidecar: how far a journal is durable. Two slots, each with its checksum; the older one is overwritten, so that one
//! is valid whenever the machine stops.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

const MAGIC: &[u8; 8] = b"MRJOURN1";
const SLOT: usize = 88;
/// Between the slots, so that no write touches both.
const SPACING: u64 = 4096;
/// Length of the file.
pub(super) const LENGTH: u64 = SPACING + SLOT as u64;

/// How far a journal is durable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Counts writes of the sidecar; the higher one is the newer slot.
    pub generation: u64,
    /// Names the journal, so that no other's position is taken for its own.
    pub journal_id: u64,
    /// The newest segment: the number of its first record.
    pub segment: u64,
    /// Where reading of the topic goes on.
    pub next_offset: u64,
    /// One more than the number of the last record.
    pub next_record: u64,
    /// Bytes of the segment.
    pub length: u64,
    /// Bytes of its index.
    pub index_length: u64,
    /// When the last record was received, µs since the epoch: the latest so far.
    pub time_us: i64,
    /// CRC-32C of the segment's bytes behind the last entry of its index.
    pub checksum: u32,
}

impl Position {
    fn encode(&self) -> [u8; SLOT] {
        let mut slot = [0; SLOT];
        let fields = [
            u64::from_le_bytes(*MAGIC),
            self.generation,
            self.journal_id,
            self.segment,
            self.next_offset,
            self.next_record,
            self.length,
            self.index_length,
            self.time_us.cast_unsigned(),
            u64::from(self.checksum),
        ];
        for (place, field) in slot.as_chunks_mut::<8>().0.iter_mut().zip(fields) {
            *place = field.to_le_bytes();
        }
        let checksum = crc32c::crc32c(&slot[..SLOT - 8]);
        slot[SLOT - 8..SLOT - 4].copy_from_slice(&checksum.to_le_bytes());
        slot
    }

    fn decode(slot: &[u8; SLOT]) -> Option<Self> {
        let words = slot.as_chunks::<8>().0;
        let word = |index: usize| u64::from_le_bytes(words[index]);
        let own = u64::from(crc32c::crc32c(&slot[..SLOT - 8]));
        let checksum = u32::try_from(word(9)).ok()?;
        (words[0] == *MAGIC && word(10) == own).then(|| Self {
            generation: word(1),
            journal_id: word(2),
            segment: word(3),
            next_offset: word(4),
            next_record: word(5),
            length: word(6),
            index_length: word(7),
            time_us: word(8).cast_signed(),
            checksum,
        })
    }
}

/// Reads the newer valid slot; `None` if neither is valid.
pub(super) fn read(file: &File) -> io::Result<Option<Position>> {
    let mut newest: Option<Position> = None;
    for at in [0, SPACING] {
        let mut slot = [0; SLOT];
        match file.read_exact_at(&mut slot, at) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => continue,
            Err(error) => return Err(error),
        }
        if let Some(position) = Position::decode(&slot)
            && newest.is_none_or(|newest| position.generation > newest.generation)
        {
            newest = Some(position);
        }
    }
    Ok(newest)
}

/// Overwrites the older slot. Durable once the file is synced.
pub(super) fn write(file: &File, position: &Position) -> io::Result<()> {
    file.write_all_at(&position.encode(), (position.generation % 2) * SPACING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slot_survives_whatever_is_torn() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(read(&file).unwrap(), None);
        file.set_len(LENGTH).unwrap();
        assert_eq!(read(&file).unwrap(), None);
        let position = |generation| Position {
            generation,
            journal_id: 5,
            segment: 1,
            next_offset: 9,
            next_record: 8,
            length: 7,
            index_length: 6,
            time_us: -1,
            checksum: u32::MAX,
        };
        for generation in 1..5 {
            let bytes = position(generation).encode();
            assert_eq!(Position::decode(&bytes), Some(position(generation)));
            for torn in 0..SLOT {
                // The first so many bytes are new.
                file.write_all_at(&bytes[..torn], (generation % 2) * SPACING).unwrap();
                let read = read(&file).unwrap();
                let before = (generation > 1).then(|| position(generation - 1));
                // The end of a slot is padding.
                let whole = torn >= SLOT - 4;
                assert_eq!(read, if whole { Some(position(generation)) } else { before }, "{generation} {torn}");
            }
            write(&file, &position(generation)).unwrap();
            assert_eq!(read(&file).unwrap(), Some(position(generation)));
        }
    }
}
