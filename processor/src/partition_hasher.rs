//! The hashes of a partition's users and event ids, under the partition's secret key.
//!
//! Counting trusts 64-bit hashes. With a public function anybody can compute users that collide, and have thousands count
//! as one, or a user whose event ids match another user's. So each partition has a random key, which is part of its state.
//! Partitions are still selected by the public hash of the user: there a collision costs balance, not counts.

use std::fmt;

use millrace_base::limits::MAX_EVENT_ID_BYTES;
use millrace_contracts::{HashKey, UserHash};
use millrace_log::StageError;
use rapidhash::v3::rapidhash_v3;
use siphasher::sip::SipHasher13;

/// Hashes the users and event ids of one partition.
#[derive(Clone)]
pub(crate) enum PartitionHasher {
    /// SipHash-1-3 under the partition's key.
    Keyed(SipHasher13),
    /// State of an earlier version, without a key: its hashes are rapidhash, and stay so.
    Unkeyed,
}

// Without the key.
impl fmt::Debug for PartitionHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Keyed(_) => "Keyed(..)",
            Self::Unkeyed => "Unkeyed",
        })
    }
}

/// A new random key.
pub(crate) fn random_key() -> Result<HashKey, StageError> {
    let mut key = [0; HashKey::BYTES];
    match getrandom::fill(&mut key) {
        Ok(()) => Ok(HashKey(key)),
        Err(error) => Err(StageError::unavailable("no random bytes for the partition's hash key").because(error)),
    }
}

impl PartitionHasher {
    pub(crate) fn keyed(key: &HashKey) -> Self {
        Self::Keyed(SipHasher13::new_with_key(&key.0))
    }

    /// The hash under which a user counts.
    #[inline]
    pub(crate) fn user(&self, user: &str) -> UserHash {
        match self {
            Self::Keyed(sip) => UserHash::from_raw(sip.hash(user.as_bytes())),
            Self::Unkeyed => UserHash::of(user),
        }
    }

    /// The hash of a user's event id.
    #[inline]
    pub(crate) fn event_id(&self, user: UserHash, id: &str) -> u64 {
        let user = user.get().to_le_bytes();
        match self {
            Self::Keyed(sip) => {
                let mut bytes = [0; 8 + MAX_EVENT_ID_BYTES];
                let (id, end) = (id.as_bytes(), 8 + id.len());
                if let Some(part) = bytes.get_mut(..end) {
                    part[..8].copy_from_slice(&user);
                    part[8..].copy_from_slice(id);
                    return sip.hash(part);
                }
                // Longer ids come from foreign producers only.
                sip.hash(&[&user, id].concat())
            }
            Self::Unkeyed => {
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&user);
                bytes[8..].copy_from_slice(&rapidhash_v3(id.as_bytes()).to_le_bytes());
                rapidhash_v3(&bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_hashes_under_a_key_that_no_other_has() {
        let keys = [random_key().unwrap(), random_key().unwrap()];
        let hashes = keys.each_ref().map(|key| {
            let hasher = PartitionHasher::keyed(key);
            let user = hasher.user("ann");
            (user, hasher.event_id(user, "order-17"), hasher.event_id(UserHash::of("ann"), "order-17"))
        });
        assert!(hashes[0].0 != hashes[1].0 && hashes[0].2 != hashes[1].2, "{hashes:?}");
        let again = PartitionHasher::keyed(&keys[0]);
        assert_eq!((again.user("ann"), again.event_id(hashes[0].0, "order-17")), (hashes[0].0, hashes[0].1));
    }
}
