//! Failed authentications of one address, in a fixed amount of memory.

use std::hash::{BuildHasher as _, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU64;
use std::time::Duration;

use super::rate::{Bucket, now};

/// Buckets; 512 KiB.
const BUCKETS: u64 = 1 << 16;

/// The rate of failures of each address, by a hash of it. Addresses that share a bucket share their rate: that harms none of
/// them, since only requests without a valid credential are refused.
#[derive(Debug)]
pub(crate) struct Failures {
    rate: Option<NonZeroU64>,
    /// Random, so that nobody finds addresses that share a bucket.
    hasher: RandomState,
    buckets: Box<[Bucket]>,
}

impl Failures {
    /// A rate per second; 0 for no bound.
    pub(crate) fn new(rate: u32) -> Self {
        let rate = NonZeroU64::new(rate.into());
        let buckets = rate.map_or(0, |_| BUCKETS);
        Self { rate, hasher: RandomState::new(), buckets: (0..buckets).map(|_| Bucket::default()).collect() }
    }

    /// Counts one.
    ///
    /// # Errors
    /// The address has failed too often; when it may fail again.
    pub(crate) fn count(&self, address: IpAddr) -> Result<(), Duration> {
        self.count_at(address, now())
    }

    fn count_at(&self, address: IpAddr, now: u64) -> Result<(), Duration> {
        let Some(rate) = self.rate else { return Ok(()) };
        let index = self.hasher.hash_one(network_of(address)) % BUCKETS;
        let bucket = usize::try_from(index).ok().and_then(|index| self.buckets.get(index));
        bucket.map_or(Ok(()), |bucket| bucket.try_take(rate, now))
    }
}

/// The address, of IPv6 its /64: one host has all addresses of it.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(failures: &Failures, address: &str) -> usize {
        let address = address.parse().unwrap();
        std::iter::repeat_with(|| failures.count_at(address, 0)).take(100).take_while(Result::is_ok).count()
    }

    #[test]
    fn an_address_fails_at_its_rate() {
        let failures = Failures::new(5);
        assert_eq!(failed(&failures, "10.0.0.1"), 5);
        assert_eq!(failed(&failures, "::ffff:10.0.0.1"), 0, "the same address");
        assert_eq!(failed(&failures, "2001:db8::1"), 5);
        assert_eq!(failed(&failures, "2001:db8::2"), 0, "the same network");
        let address = "10.0.0.1".parse().unwrap();
        assert_eq!(failures.count_at(address, 0), Err(Duration::from_millis(200)));
        assert_eq!(failures.count_at(address, 200_000_000), Ok(()));
        assert_eq!(failed(&Failures::new(0), "10.0.0.1"), 100);
    }

    #[test]
    fn a_flood_of_addresses_takes_no_memory_and_harms_few() {
        let failures = Failures::new(5);
        let before = failures.buckets.len();
        for address in 0..20_000_u32 {
            let _ = failures.count_at(IpAddr::V4(address.to_be().into()), 0);
        }
        assert_eq!(failures.buckets.len(), before);
        let fresh = (0..1_000_u32).filter(|n| failed(&failures, &format!("192.168.{}.{}", n / 250, n % 250)) == 5);
        assert!(fresh.count() > 600, "of 65,536 buckets 20,000 are in use at most");
    }
}
