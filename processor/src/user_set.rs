//! A compact hash set of users in memory.

use std::hash::Hasher;

use millrace_contracts::UserHash;

/// A hasher that only rotates. User hashes are uniform except, without a hash key, for their low 10 bits, which the users of a
/// partition nearly share; the rotation moves those to bits that a hash table uses last.
#[derive(Default)]
pub(crate) struct RotatedHasher(u64);

impl Hasher for RotatedHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("a user hash is one u64")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash.rotate_left(32);
    }
}

/// A set of user hashes: one array, linear probing, load factor at most 3/4, growth by half. It takes 10.7 to 16 bytes per
/// user; a table that doubles and has a control byte per slot takes up to 20.6.
#[derive(Debug, Default)]
pub(crate) struct UserSet {
    /// Zero marks a free slot.
    slots: Vec<u64>,
    /// Users in `slots`.
    len: usize,
    /// Whether the set contains the hash zero, which has no slot.
    zero: bool,
}

/// Multiplier that spreads sorted input, such as a snapshot: neighbors would fill one end of a table that still grows.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
const FIRST_SLOTS: usize = 8;

impl UserSet {
    /// Inserts a user. Returns true if the user is new.
    #[inline]
    pub(crate) fn insert(&mut self, user: UserHash) -> bool {
        let user = user.get();
        if user == 0 {
            return !std::mem::replace(&mut self.zero, true);
        }
        if self.len * 4 >= self.slots.len() * 3 {
            self.grow();
        }
        let slot = self.find(user);
        let new = self.slots[slot] == 0;
        if new {
            self.slots[slot] = user;
            self.len += 1;
        }
        new
    }

    pub(crate) fn contains(&self, user: UserHash) -> bool {
        match user.get() {
            0 => self.zero,
            _ if self.slots.is_empty() => false,
            user => self.slots[self.find(user)] != 0,
        }
    }

    pub(crate) fn remove(&mut self, user: UserHash) {
        let user = user.get();
        if user == 0 || !self.contains(UserHash::from_raw(user)) {
            self.zero &= user != 0;
            return;
        }
        // Backward shift: later users move up, unless that would put them before their home slot.
        let mut free = self.find(user);
        let mut at = free;
        loop {
            at = self.next(at);
            let moved = self.slots[at];
            if moved == 0 {
                break;
            }
            let (from_home, gap) = (self.distance(self.home(moved), at), self.distance(free, at));
            if from_home >= gap {
                self.slots[free] = moved;
                free = at;
            }
        }
        self.slots[free] = 0;
        self.len -= 1;
    }

    pub(crate) fn len(&self) -> usize {
        self.len + usize::from(self.zero)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = UserHash> {
        let users = self.slots.iter().copied().filter(|&user| user != 0);
        self.zero.then_some(0).into_iter().chain(users).map(UserHash::from_raw)
    }

    /// The hashes in ascending order.
    pub(crate) fn sorted(&self) -> Vec<u64> {
        let mut users = Vec::with_capacity(self.len());
        users.extend(self.iter().map(UserHash::get));
        users.sort_unstable();
        users
    }

    /// Bytes of memory.
    pub(crate) fn memory(&self) -> usize {
        size_of_val(&*self.slots)
    }

    #[cold]
    fn grow(&mut self) {
        let slots = (self.slots.len() / 2 * 3).max(FIRST_SLOTS);
        let old = std::mem::replace(&mut self.slots, vec![0; slots]);
        for user in old.into_iter().filter(|&user| user != 0) {
            let slot = self.find(user);
            self.slots[slot] = user;
        }
    }

    /// The slot of a user, or the free slot where it belongs. One exists: the table is never full.
    #[inline]
    fn find(&self, user: u64) -> usize {
        let mut slot = self.home(user);
        while self.slots[slot] != user && self.slots[slot] != 0 {
            slot = self.next(slot);
        }
        slot
    }

    /// The home slot of a user, where the search begins.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "the product's upper half is below the number of slots")]
    fn home(&self, user: u64) -> usize {
        ((u128::from(user.wrapping_mul(SPREAD)) * self.slots.len() as u128) >> u64::BITS) as usize
    }

    #[inline]
    fn next(&self, slot: usize) -> usize {
        if slot + 1 == self.slots.len() { 0 } else { slot + 1 }
    }

    /// The number of steps from one slot to another.
    fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots.len() - from }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use millrace_contracts::partition_of;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_hash_set(steps in prop::collection::vec((any::<bool>(), 0..60_u64), 0..400)) {
            let (mut set, mut expected) = (UserSet::default(), HashSet::new());
            for (insert, user) in steps {
                // A few home slots, including the last, so that searches collide and wrap around.
                let hash = (user % 3).wrapping_sub(1).wrapping_mul(user << 50 | 1);
                if insert {
                    prop_assert_eq!(set.insert(UserHash::from_raw(hash)), expected.insert(hash));
                } else {
                    set.remove(UserHash::from_raw(hash));
                    expected.remove(&hash);
                }
                prop_assert_eq!(set.len(), expected.len());
                prop_assert!(expected.iter().all(|&hash| set.contains(UserHash::from_raw(hash))));
            }
            let mut sorted: Vec<u64> = expected.into_iter().collect();
            sorted.sort_unstable();
            prop_assert_eq!(set.sorted(), sorted);
        }
    }

    #[test]
    fn users_of_one_partition_are_near_their_home_slots() {
        let users = (0..400_000).map(|user| UserHash::of(&format!("user-{user}")));
        let mut users: Vec<UserHash> = users.filter(|&user| partition_of(user, 12) == 5).collect();
        for sorted in [false, true] {
            let mut set = UserSet::default();
            for &user in &users {
                set.insert(user);
                assert!(set.len() < 100 || set.memory() <= set.len() * 16 + 8);
            }
            let distances = set.iter().map(|user| set.distance(set.home(user.get()), set.find(user.get())));
            let mean = distances.sum::<usize>() as f64 / set.len() as f64;
            assert!(mean < 2.0, "{mean} steps, sorted: {sorted}");
            users.sort_unstable();
        }
    }
}
