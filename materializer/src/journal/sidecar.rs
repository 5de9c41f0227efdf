//! The sidecar: how far a journal is durable. Two slots, each with its checksum; the older one is overwritten, so that one
//! is valid whenever the machine stops.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use millrace_contracts::ProjectionPosition;

const MAGIC: &[u8; 8] = b"MRJOURN1";
const SLOT: usize = 88;
/// Behind a slot: its generation again, and the identity of the record before the position. Earlier versions leave it out.
const IDENTITY: usize = 24;
/// Between the slots, so that no write touches both.
const SPACING: u64 = 4096;
/// Length of the file.
pub(super) const LENGTH: u64 = SPACING + (SLOT + IDENTITY) as u64;

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
    /// The identity of the record of the topic before `next_offset`; `None` in positions of earlier versions.
    pub last_record: Option<u64>,
}

impl Position {
    /// Where reading of the topic goes on; `None` for a new journal, which begins with the first record there is.
    pub fn projected(&self) -> Option<ProjectionPosition> {
        let Self { next_offset, last_record, .. } = *self;
        (next_offset > 0 || self.index_length > 0).then_some(ProjectionPosition { next_offset, last_record })
    }

    fn encode(&self) -> [u8; SLOT + IDENTITY] {
        let mut slot = [0; SLOT + IDENTITY];
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
        let (own, behind) = slot.split_at_mut(SLOT);
        seal(own);
        if let Some(identity) = self.last_record {
            behind[..8].copy_from_slice(&self.generation.to_le_bytes());
            behind[8..16].copy_from_slice(&identity.to_le_bytes());
            seal(behind);
        }
        slot
    }

    fn decode(slot: &[u8; SLOT + IDENTITY]) -> Option<Self> {
        let words = slot.as_chunks::<8>().0;
        let word = |index: usize| u64::from_le_bytes(words[index]);
        let (slot, behind) = slot.split_at(SLOT);
        let own = u64::from(crc32c::crc32c(&slot[..SLOT - 8]));
        let intact = u64::from(crc32c::crc32c(&behind[..IDENTITY - 8])) == word(13);
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
            // An earlier version writes the slot alone.
            last_record: (intact && word(11) == word(1)).then(|| word(12)),
        })
    }
}

/// Puts the checksum of the rest into the last word.
fn seal(words: &mut [u8]) {
    let (rest, last) = words.split_at_mut(words.len() - 8);
    last[..4].copy_from_slice(&crc32c::crc32c(rest).to_le_bytes());
}

/// Reads the newer valid slot; `None` if neither is valid.
pub(super) fn read(file: &File) -> io::Result<Option<Position>> {
    let mut newest: Option<Position> = None;
    for at in [0, SPACING] {
        let (mut slot, mut filled) = ([0; SLOT + IDENTITY], 0);
        loop {
            match file.read_at(&mut slot[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
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
            last_record: Some(u64::MAX - generation),
        };
        for generation in 1..5 {
            let bytes = position(generation).encode();
            assert_eq!(Position::decode(&bytes), Some(position(generation)));
            for torn in 0..bytes.len() {
                // The first so many bytes are new.
                file.write_all_at(&bytes[..torn], (generation % 2) * SPACING).unwrap();
                let read = read(&file).unwrap();
                let before = (generation > 1).then(|| position(generation - 1));
                // The end of a slot is padding.
                let (whole, identified) = (torn >= SLOT - 4, torn >= bytes.len() - 4);
                let new = Position {
                    last_record: position(generation).last_record.filter(|_| identified),
                    ..position(generation)
                };
                assert_eq!(read, if whole { Some(new) } else { before }, "{generation} {torn}");
            }
            write(&file, &position(generation)).unwrap();
            assert_eq!(read(&file).unwrap(), Some(position(generation)));
        }
    }

    #[test]
    fn a_slot_of_an_earlier_version_has_no_identity() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SPACING + SLOT as u64).unwrap();
        let position = |generation, last_record| Position { generation, last_record, ..Position::default() };
        write(&file, &position(1, None)).unwrap();
        file.set_len(SPACING + SLOT as u64).unwrap();
        assert_eq!(read(&file).unwrap(), Some(position(1, None)));
        write(&file, &position(2, Some(7))).unwrap();
        write(&file, &position(3, Some(8))).unwrap();
        assert_eq!(read(&file).unwrap(), Some(position(3, Some(8))));
        // It writes the slot, and leaves what is behind it.
        file.write_all_at(&position(4, None).encode()[..SLOT], 0).unwrap();
        assert_eq!(read(&file).unwrap(), Some(position(4, None)));
    }
}
