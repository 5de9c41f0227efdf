//! The fold of a batch to the newest count of each hour. Pure.

use std::collections::BTreeMap;

use millrace_contracts::{CountedPosition, DecodeError, Hour, HourlyCount};
use millrace_log::Batch;

/// The result of a fold.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Fold {
    /// The newest count of each hour, by hour.
    pub(crate) counts: Vec<HourlyCount>,
    /// The position of the last step that ends in the batch.
    pub(crate) counted: Option<CountedPosition>,
    /// The number of steps that end in the batch.
    pub(crate) steps: u64,
    /// The number of records that are not valid counts of this partition.
    pub(crate) skipped: u64,
    /// The offset and the error of the first skipped record.
    pub(crate) first_skipped: Option<(u64, DecodeError)>,
}

/// Folds a batch. Counts are absolute, so the newest of an hour is enough, and the order of the records does not matter.
pub(crate) fn fold(batch: &Batch) -> Fold {
    let mut newest: BTreeMap<Hour, HourlyCount> = BTreeMap::new();
    let mut fold = Fold::default();
    for record in batch.iter() {
        match decode(batch.partition(), record.value) {
            Ok(new) => {
                let old = newest.entry(new.hour).or_insert(new);
                if (old.generation, old.next_offset) < (new.generation, new.next_offset) {
                    *old = new;
                }
            }
            Err(error) => {
                if let Some(counted) = counted(batch.partition(), record.value) {
                    fold.counted = Some(counted);
                    fold.steps += 1;
                    continue;
                }
                fold.skipped += 1;
                fold.first_skipped.get_or_insert((record.offset, error));
            }
        }
    }
    fold.counts = newest.into_values().collect();
    fold
}

/// The position at the end of a step.
fn counted(partition: u32, value: Option<&[u8]>) -> Option<CountedPosition> {
    CountedPosition::decode(value?).ok().filter(|counted| counted.partition == partition)
}

/// Decodes a count. One that no store can represent, or of another partition, is an error too.
fn decode(partition: u32, value: Option<&[u8]>) -> Result<HourlyCount, DecodeError> {
    let count = HourlyCount::decode(value.ok_or(DecodeError::Empty)?)?;
    if count.partition != partition {
        return Err(DecodeError::Range("partition"));
    }
    if !(Hour::from_index(0)..=Hour::MAX).contains(&count.hour) {
        return Err(DecodeError::Range("hour"));
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_contracts::Exactness;
    use millrace_log::Record;
    use proptest::prelude::*;

    fn batch(values: &[Option<Vec<u8>>]) -> Batch {
        let mut batch = Batch::new(3);
        for (offset, value) in (10..).zip(values) {
            batch.push(Record { offset, timestamp_ms: 0, key: b"key", value: value.as_deref() });
        }
        batch
    }

    fn count(hour: i64, generation: u32, next_offset: u64) -> HourlyCount {
        // The counts are a function of the position, as in the log.
        let n = next_offset * 8 + u64::from(generation);
        let exactness = if n.is_multiple_of(2) { Exactness::Exact } else { Exactness::Approximate };
        let hour = Hour::from_index(hour);
        HourlyCount {
            hour,
            partition: 3,
            generation,
            next_offset,
            clicks: n,
            impressions: n + 1,
            unique_users: n + 2,
            exactness,
        }
    }

    fn bytes(count: &HourlyCount) -> Vec<u8> {
        let mut bytes = Vec::new();
        count.encode(&mut bytes);
        bytes
    }

    #[test]
    fn records_that_are_not_counts_of_the_partition_are_skipped() {
        let good = count(7, 1, 5);
        let foreign = HourlyCount { partition: 4, ..good };
        let beyond = HourlyCount { hour: Hour::MAX.plus(1), ..good };
        let values = [Some(bytes(&good)), None, Some(b"junk".to_vec()), Some(bytes(&foreign)), Some(bytes(&beyond))];
        let folded = fold(&batch(&values));
        let first_skipped = Some((11, DecodeError::Empty));
        let expected = Fold { counts: vec![good], skipped: 4, first_skipped, ..Fold::default() };
        assert_eq!(folded, expected);
        assert_eq!(fold(&Batch::new(3)), Fold::default());
    }

    #[test]
    fn the_last_step_that_ends_in_a_batch_is_its_position() {
        let counted = |partition, next_offset| CountedPosition { partition, next_offset, log_time_ms: 7 };
        let bytes_of = |counted: CountedPosition| {
            let mut bytes = Vec::new();
            counted.encode(&mut bytes);
            bytes
        };
        let values = [
            Some(bytes_of(counted(3, 5))),
            Some(bytes_of(counted(3, 9))),
            // The next step does not end in the batch.
            Some(bytes(&count(7, 1, 12))),
        ];
        let folded = fold(&batch(&values));
        assert_eq!((folded.counted, folded.steps, folded.counts.len(), folded.skipped), (Some(counted(3, 9)), 2, 1, 0));
        let foreign = fold(&batch(&[Some(bytes_of(counted(4, 5)))]));
        assert_eq!((foreign.counted, foreign.skipped), (None, 1));
    }

    proptest! {
        #[test]
        fn order_repetition_and_batching_do_not_matter(
            positions in prop::collection::vec((0..5_i64, 1..3_u32, 0..30_u64), 0..40),
            repeated in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut counts: Vec<HourlyCount> = positions.iter().map(|&(h, g, o)| count(h, g, o)).collect();
            let mut reference: BTreeMap<i64, (u32, u64)> = BTreeMap::new();
            for &(hour, generation, offset) in &positions {
                let newest = reference.entry(hour).or_default();
                *newest = (*newest).max((generation, offset));
            }
            let reference: Vec<HourlyCount> = reference.into_iter().map(|(h, (g, o))| count(h, g, o)).collect();

            if !counts.is_empty() {
                counts.extend(repeated.iter().map(|index| *index.get(&counts.clone())).collect::<Vec<_>>());
            }
            let values: Vec<_> = counts.iter().map(|count| Some(bytes(count))).collect();
            prop_assert_eq!(&fold(&batch(&values)).counts, &reference);
            // In two batches, the second together with the fold of the first.
            let cut = cut.index(values.len() + 1);
            let first = fold(&batch(&values[..cut])).counts;
            let mut rest: Vec<_> = first.iter().map(|count| Some(bytes(count))).collect();
            rest.extend_from_slice(&values[cut..]);
            rest.reverse();
            prop_assert_eq!(&fold(&batch(&rest)).counts, &reference);
        }
    }
}
