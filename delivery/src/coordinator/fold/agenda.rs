//! Keys in the order of a number, so that a look at the first ones costs no more than their number.

use std::collections::{BTreeMap, BTreeSet};

/// Keys, each with a number: a time, an offset.
#[derive(Debug)]
pub(super) struct Agenda<K> {
    numbers: BTreeMap<K, i64>,
    order: BTreeSet<(i64, K)>,
}

impl<K> Default for Agenda<K> {
    fn default() -> Self {
        Self { numbers: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Agenda<K> {
    /// Gives a key its number; without one the key is taken out.
    pub(super) fn set(&mut self, key: &K, number: Option<i64>) {
        let known = self.numbers.get(key).copied();
        if known == number {
            return;
        }
        if let Some(known) = known {
            self.numbers.remove(key);
            self.order.remove(&(known, key.clone()));
        }
        if let Some(number) = number {
            self.numbers.insert(key.clone(), number);
            self.order.insert((number, key.clone()));
        }
    }

    /// Keys up to a number, ascending.
    pub(super) fn up_to(&self, number: i64) -> impl Iterator<Item = &K> {
        self.order.iter().take_while(move |(at, _)| *at <= number).map(|(_, key)| key)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_in_the_order_of_their_newest_numbers() {
        let mut agenda = Agenda::default();
        for (key, number) in [("a", 3), ("b", 1), ("c", 2), ("b", 5)] {
            agenda.set(&key, Some(number));
        }
        let up_to = |agenda: &Agenda<&'static str>, number| agenda.up_to(number).copied().collect::<Vec<_>>();
        assert_eq!(
            (up_to(&agenda, 1), up_to(&agenda, 3), up_to(&agenda, 5)),
            (vec![], vec!["c", "a"], vec!["c", "a", "b"])
        );
        for key in ["a", "b", "c", "d"] {
            agenda.set(&key, None);
        }
        assert!(agenda.is_empty() && up_to(&agenda, i64::MAX).is_empty());
    }
}
