//! One row of the index: ascending offsets, as the first one and then differences, each as a LEB128. Pure.

use std::ops::Range;

use super::IndexPage;

/// The messages of a topic that one step found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexRow {
    /// The offset of the command that created the topic.
    pub topic_id: u64,
    /// Their offsets, ascending; at least one, and at most [`IndexRow::MAX_OFFSETS`], so that a page reads few that it does not
    /// return.
    pub offsets: Vec<u64>,
}

impl IndexRow {
    /// Most offsets of a row.
    pub const MAX_OFFSETS: usize = 1_024;

    pub(super) fn last(&self) -> u64 {
        self.offsets.last().copied().unwrap_or_default()
    }
}

pub(super) fn encode(offsets: &[u64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(offsets.len() + 8);
    let mut before = 0;
    for &offset in offsets {
        let mut left = offset - before;
        before = offset;
        while left >= 0x80 {
            bytes.push(u8::try_from(left & 0x7f).unwrap_or_default() | 0x80);
            left >>= 7;
        }
        bytes.push(u8::try_from(left).unwrap_or_default());
    }
    bytes
}

/// The offsets; `None` if the bytes are not a row.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<u64>> {
    let mut offsets = Vec::with_capacity(bytes.len());
    let (mut before, mut number, mut shift) = (0_u64, 0_u64, 0_u32);
    for &byte in bytes {
        let part = u64::from(byte & 0x7f);
        number |= part.checked_shl(shift).filter(|shifted| shifted >> shift == part)?;
        shift += 7;
        if byte & 0x80 == 0 {
            if !offsets.is_empty() && number == 0 {
                return None;
            }
            before = before.checked_add(number)?;
            offsets.push(before);
            (number, shift) = (0, 0);
        }
    }
    (shift == 0 && !offsets.is_empty()).then_some(offsets)
}

/// The offsets within `range`, at most `max`, of an index that is complete up to `position`. `rows` are a topic's rows that end
/// within the range or behind it, ascending: all of them, or the first ones with at least `max` offsets together.
pub(super) fn page(position: u64, rows: &[Vec<u64>], range: Range<u64>, max: usize) -> IndexPage {
    let end = position.clamp(range.start, range.end.max(range.start));
    let all = rows.iter().flatten().copied();
    let complete = rows.iter().map(Vec::len).sum::<usize>() < max;
    let mut offsets: Vec<u64> = all.clone().filter(|offset| (range.start..end).contains(offset)).collect();
    let mut until = if complete { end } else { all.last().map_or(end, |last| end.min(last + 1)) };
    if offsets.len() > max {
        until = offsets[max];
        offsets.truncate(max);
    }
    IndexPage { offsets, until }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bytes_that_are_no_row_are_refused() {
        for bytes in [
            &[][..],
            &[0x80],
            &[5, 0],
            &[5, 0x81],
            &[0xff; 11],
            &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2],
        ] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
        assert_eq!(encode(&[300, 301, 500]), [0xac, 2, 1, 0xc7, 1]);
        assert_eq!(decode(&encode(&[0])), Some(vec![0]));
        assert_eq!(decode(&encode(&[u64::MAX])), Some(vec![u64::MAX]));
    }

    proptest! {
        #[test]
        fn offsets_round_trip(offsets in prop::collection::btree_set(any::<u64>(), 1..50)) {
            let offsets: Vec<u64> = offsets.into_iter().collect();
            prop_assert_eq!(decode(&encode(&offsets)), Some(offsets));
        }

        #[test]
        fn any_bytes_decode_to_ascending_offsets_or_none(bytes: Vec<u8>) {
            if let Some(offsets) = decode(&bytes) {
                prop_assert!(offsets.is_sorted_by(|a, b| a < b));
            }
        }

        /// Page after page, a reader gets exactly the messages below the position, whatever rows they came in.
        #[test]
        fn pages_return_every_offset_once_and_stop_at_the_position(
            offsets in prop::collection::btree_set(0..400_u64, 0..120),
            cuts in prop::collection::btree_set(1..120_usize, 0..20),
            position in 0..420_u64,
            (start, end) in (0..400_u64, 0..420_u64),
            max in 1..40_usize,
        ) {
            // An index at a position has nothing at or behind it.
            let indexed: Vec<u64> = offsets.range(..position).copied().collect();
            let mut rows: Vec<Vec<u64>> = Vec::new();
            for (number, &offset) in indexed.iter().enumerate() {
                match rows.last_mut() {
                    Some(row) if !cuts.contains(&number) => row.push(offset),
                    _ => rows.push(vec![offset]),
                }
            }
            let (mut from, mut read) = (start, Vec::new());
            loop {
                // What a store returns: rows until there are enough.
                let mut enough = 0;
                let ending_behind = rows.iter().filter(|row| row.last().is_some_and(|last| *last >= from));
                let stored: Vec<Vec<u64>> = ending_behind
                    .take_while(|row| {
                        let taken = enough < max;
                        enough += row.len();
                        taken
                    })
                    .cloned()
                    .collect();
                let page = page(position, &stored, from..end, max);
                prop_assert!(page.offsets.len() <= max);
                prop_assert!(page.until >= from);
                read.extend(page.offsets);
                if page.until == from {
                    break;
                }
                from = page.until;
            }
            let expected: Vec<u64> = indexed.into_iter().filter(|offset| (start..end).contains(offset)).collect();
            prop_assert_eq!(read, expected);
            prop_assert_eq!(from, start.max(position.min(end)), "everything below is decided");
        }
    }
}
