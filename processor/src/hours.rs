//! What is known of one hour in one partition: two counters and the set of users.

use std::hash::{BuildHasherDefault, Hasher};

use hashbrown::HashSet;
use millrace_contracts::{Hour, HourCounters, Kind, UserHash};

/// User hashes are uniform but for their low 10 bits, which are nearly the same for all users of a partition: those go
/// where the table looks last. Hashing again would only cost time.
#[derive(Default)]
pub(crate) struct Rotated(u64);

impl Hasher for Rotated {
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

/// One hour in one partition.
#[derive(Debug)]
pub(crate) struct HourState {
    pub(crate) hour: Hour,
    pub(crate) counters: HourCounters,
    /// Where the step under way keeps notes of this hour.
    pub(crate) touched: Option<usize>,
    users: HashSet<u64, BuildHasherDefault<Rotated>>,
}

impl HourState {
    pub(crate) fn new(hour: Hour) -> Self {
        Self { hour, counters: HourCounters::default(), touched: None, users: HashSet::default() }
    }

    /// Counts an event; true when the user is new to the hour.
    pub(crate) fn count(&mut self, kind: Kind, user: UserHash) -> bool {
        match kind {
            Kind::Click => self.counters.clicks += 1,
            Kind::Impression => self.counters.impressions += 1,
        }
        self.users.insert(user.get())
    }

    pub(crate) fn add_user(&mut self, user: UserHash) {
        self.users.insert(user.get());
    }

    pub(crate) fn remove_user(&mut self, user: UserHash) {
        self.users.remove(&user.get());
    }

    pub(crate) fn unique_users(&self) -> u64 {
        self.users.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use millrace_contracts::partition_of;

    use super::*;

    #[test]
    fn users_of_one_partition_spread_over_the_whole_table() {
        let users = (0..200_000).map(|user| UserHash::of(&format!("user-{user}")));
        let of_one_partition = users.filter(|&user| partition_of(user, 12) == 5);
        let buckets: HashSet<u64> = of_one_partition
            .map(|user| {
                let mut hasher = Rotated::default();
                hasher.write_u64(user.get());
                hasher.finish() % 1_024
            })
            .collect();
        assert!(buckets.len() > 1_000, "{} of 1024 buckets are in use", buckets.len());
    }
}
