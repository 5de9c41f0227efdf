//! The map from users to partitions.
//!
//! The user determines the partition, so the users of two partitions are disjoint and unique users add up exactly. The map
//! is part of the log's contract: it may change only with a new generation, at the start of a future hour.

use rapidhash::v3::rapidhash_v3;

/// Number of virtual shards; the partition count may be anything up to it.
pub const SHARDS: u64 = 1024;

/// The current generation of the partition map. A new one must begin at a future hour, so that each hour has one generation.
pub const GENERATION: u32 = 1;

/// A user's 64-bit hash: rapidhash v3 with its default seed, the same on every machine and in every version.
///
/// Two users of one hour collide with probability n²/2⁶⁵: 2.7 × 10⁻⁶ expected at 10 million users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserHash(u64);

impl UserHash {
    /// The hash of a user's id.
    pub const fn of(user: &str) -> Self {
        Self(rapidhash_v3(user.as_bytes()))
    }

    /// A hash that was stored as 64 bits.
    pub const fn from_raw(hash: u64) -> Self {
        Self(hash)
    }

    /// The 64 bits.
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// The partition of a user, out of `partitions`. Each partition has a contiguous range of virtual shards, all of equal size.
#[expect(clippy::cast_possible_truncation, reason = "the result is below the number of partitions")]
pub const fn partition_of(user: UserHash, partitions: u32) -> u32 {
    ((user.0 % SHARDS) * partitions as u64 / SHARDS) as u32
}

/// The partition of any other key, by the same map.
pub(crate) const fn partition_of_bytes(key: &[u8], partitions: u32) -> u32 {
    partition_of(UserHash(rapidhash_v3(key)), partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_map_never_changes() {
        // With other values, every existing log would count its users twice.
        let got: Vec<u32> =
            ["", "kek", "alice", "user-4711", "näme"].map(|user| partition_of(UserHash::of(user), 12)).to_vec();
        assert_eq!(got, MAPPED);
        assert_eq!(UserHash::of("kek").get(), KEK);
    }

    const MAPPED: [u32; 5] = [5, 11, 8, 9, 10];
    const KEK: u64 = 12_683_456_044_230_908_880;

    #[test]
    fn users_spread_evenly_over_partitions() {
        for partitions in [1, 3, 12, 64] {
            let mut counts = vec![0_u32; partitions as usize];
            for user in 0..120_000 {
                counts[partition_of(UserHash::of(&format!("u{user}")), partitions) as usize] += 1;
            }
            let fair = 120_000 / partitions;
            assert!(counts.iter().all(|&n| n.abs_diff(fair) < fair / 5), "{counts:?}");
        }
    }
}
