//! Which dead letters of a subscription were redriven: ranges of offsets in `dead-letters`, as (first, last). Pure.

/// Whether a letter was redriven.
pub(crate) fn contains(redriven: &[(u64, u64)], letter: u64) -> bool {
    let index = redriven.partition_point(|(_, last)| *last < letter);
    redriven.get(index).is_some_and(|(first, _)| *first <= letter)
}

/// Adds a range. Ranges stay ascending and disjoint.
pub(crate) fn insert(redriven: &mut Vec<(u64, u64)>, (mut first, mut last): (u64, u64)) {
    let from = redriven.partition_point(|(_, end)| end.saturating_add(1) < first);
    let to = redriven.partition_point(|(begin, _)| *begin <= last.saturating_add(1));
    if from < to {
        first = first.min(redriven[from].0);
        last = last.max(redriven[to - 1].1);
    }
    redriven.splice(from..to, [(first, last)]);
}

/// Takes a letter out again.
pub(crate) fn remove(redriven: &mut Vec<(u64, u64)>, letter: u64) {
    let index = redriven.partition_point(|(_, last)| *last < letter);
    let Some((first, last)) = redriven.get(index).copied().filter(|(first, _)| *first <= letter) else { return };
    let below = (first < letter).then(|| (first, letter - 1));
    let above = (letter < last).then(|| (letter + 1, last));
    redriven.splice(index..=index, below.into_iter().chain(above));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_a_set(ranges in proptest::collection::vec((0..60_u64, 0..8_u64, 0..60_u64), 0..30)) {
            let (mut redriven, mut model) = (Vec::new(), BTreeSet::new());
            for (first, length, removed) in ranges {
                insert(&mut redriven, (first, first + length));
                model.extend(first..=first + length);
                remove(&mut redriven, removed);
                model.remove(&removed);
            }
            for letter in 0..80 {
                prop_assert_eq!(contains(&redriven, letter), model.contains(&letter), "{} in {:?}", letter, redriven);
            }
            prop_assert!(redriven.is_sorted_by(|a, b| a.1 + 1 < b.0), "{:?}", redriven);
        }
    }
}
