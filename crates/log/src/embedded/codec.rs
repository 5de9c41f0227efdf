//! The format of records and numbers on disk.
//!
//! A record is `timestamp_ms: i64 BE | key length: u32 BE, highest bit for a tombstone | key | value`; its offset is
//! its key in the keyspace. In a `latest` keyspace the offset precedes it. Tables and journals have checksums.

use crate::Record;

pub(super) const HEADER: usize = 12;
const TOMBSTONE: u32 = 1 << 31;

/// Appends a record.
pub(super) fn encode(timestamp_ms: i64, key: &[u8], value: Option<&[u8]>, out: &mut Vec<u8>) {
    out.extend_from_slice(&timestamp_ms.to_be_bytes());
    let key_length = u32::try_from(key.len()).expect("records are far smaller than 4 GiB");
    let tombstone = if value.is_none() { TOMBSTONE } else { 0 };
    out.extend_from_slice(&(key_length | tombstone).to_be_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value.unwrap_or_default());
}

/// Decodes a record; `None` if the bytes are not one.
pub(super) fn decode(offset: u64, bytes: &[u8]) -> Option<Record<'_>> {
    let (timestamp, rest) = bytes.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length);
    let (key, value) = rest.split_at_checked((length & !TOMBSTONE) as usize)?;
    let value = (length & TOMBSTONE == 0).then_some(value);
    Some(Record { offset, timestamp_ms: i64::from_be_bytes(*timestamp), key, value })
}

/// Decodes a record that this process encoded, without its offset.
pub(super) fn decode_own(encoded: &[u8]) -> Record<'_> {
    decode(0, encoded).expect("this process encoded it")
}

/// Decodes a number of a key or value; big-endian, so that keys sort by number.
pub(super) fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_record_round_trips(timestamp_ms: i64, key: Vec<u8>, value: Option<Vec<u8>>, cut in 0..HEADER) {
            let mut bytes = Vec::new();
            encode(timestamp_ms, &key, value.as_deref(), &mut bytes);
            let record = Record { offset: 7, timestamp_ms, key: &key, value: value.as_deref() };
            prop_assert_eq!(decode(7, &bytes), Some(record));
            prop_assert_eq!(decode_own(&bytes).key, &key);
            prop_assert_eq!(decode(7, &bytes[..cut]), None);
        }
    }
}
