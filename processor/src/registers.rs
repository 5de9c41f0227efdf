//! A `HyperLogLog` sketch of users, standard error 0.81 %.
//!
//! No crate serves, for three reasons: the code must find the registers that changed (only those go to the log), read one
//! register on disk without the others, and compute an estimate from the registers alone that never decreases when a
//! register increases. Estimate: Otmar Ertl, New cardinality estimation algorithms for `HyperLogLog` sketches (2017),
//! algorithm 6.

use std::f64::consts::LN_2;

use millrace_contracts::{UserHash, UserSketch};

/// Bits of the hash, after the register's number, that determine the rank. Without a hash key the low 10 bits
/// determine the partition, so the users of a partition share them.
const RANK_BITS: u32 = 40;
const MAX_RANK: usize = RANK_BITS as usize + 1;

/// A register per hash prefix: one plus the longest run of zeros after it.
#[derive(Debug, Clone)]
pub(crate) struct Registers(Box<[u8; UserSketch::REGISTERS]>);

/// The register of a user, and the value to which the user raises it.
pub(crate) fn rank(user: UserHash) -> (u16, u8) {
    const NUMBER_BITS: u32 = UserSketch::REGISTERS.trailing_zeros();
    let number = user.get() >> (u64::BITS - NUMBER_BITS);
    // A one after the last bit ends the run.
    let rest = user.get() << NUMBER_BITS | 1 << (u64::BITS - RANK_BITS - 1);
    (u16::try_from(number).expect("14 bits"), u8::try_from(rest.leading_zeros() + 1).expect("at most 41"))
}

impl Default for Registers {
    fn default() -> Self {
        Self(Box::new([0; UserSketch::REGISTERS]))
    }
}

impl Registers {
    pub(crate) const MEMORY: usize = UserSketch::REGISTERS;

    pub(crate) fn as_array(&self) -> &[u8; UserSketch::REGISTERS] {
        &self.0
    }

    pub(crate) fn get(&self, number: u16) -> u8 {
        self.0[usize::from(number)]
    }

    pub(crate) fn set(&mut self, number: u16, value: u8) {
        self.0[usize::from(number)] = value;
    }

    /// Raises a register to a value. Returns true if it was lower.
    pub(crate) fn raise(&mut self, number: u16, value: u8) -> bool {
        let register = &mut self.0[usize::from(number)];
        let raised = *register < value;
        *register = value.max(*register);
        raised
    }

    pub(crate) fn add(&mut self, user: UserHash) {
        let (number, value) = rank(user);
        self.raise(number, value);
    }

    /// The estimated number of distinct users.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an estimate of 2^54 users at most")]
    pub(crate) fn estimate(&self) -> u64 {
        let mut counts = [0_u32; MAX_RANK + 1];
        for &register in self.0.iter() {
            // A value from the log may exceed MAX_RANK if the record is corrupt.
            counts[usize::from(register).min(MAX_RANK)] += 1;
        }
        let registers = UserSketch::REGISTERS as f64;
        let mut sum = registers * tau(1.0 - f64::from(counts[MAX_RANK]) / registers);
        for &count in counts[1..MAX_RANK].iter().rev() {
            sum = 0.5 * (sum + f64::from(count));
        }
        sum += registers * sigma(f64::from(counts[0]) / registers);
        (registers * registers / (2.0 * LN_2 * sum)).round() as u64
    }
}

/// The contribution of registers at zero.
fn sigma(share: f64) -> f64 {
    if share >= 1.0 {
        return f64::INFINITY;
    }
    let (mut x, mut y, mut sum) = (share, 1.0, share);
    loop {
        x *= x;
        let before = sum;
        sum += x * y;
        y += y;
        if sum <= before {
            return sum;
        }
    }
}

/// The contribution of registers at the maximum.
fn tau(share: f64) -> f64 {
    if share <= 0.0 || share >= 1.0 {
        return 0.0;
    }
    let (mut x, mut y, mut sum) = (share, 1.0, 1.0 - share);
    loop {
        x = x.sqrt();
        let before = sum;
        y *= 0.5;
        sum -= (1.0 - x) * (1.0 - x) * y;
        if sum >= before {
            return sum / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_contracts::partition_of;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_error_is_within_three_standard_errors() {
        // Users of one partition, as in every sketch: they share their low bits.
        for run in 0..3 {
            let mut sketch = Registers::default();
            let (mut users, mut checks) = (0_u64, [1_000, 10_000, 100_000, 1_000_000].into_iter().peekable());
            for user in 0.. {
                let hash = UserHash::of(&format!("{run}-{user}"));
                if partition_of(hash, 2) != 1 {
                    continue;
                }
                sketch.add(hash);
                users += 1;
                let Some(&check) = checks.peek() else { break };
                if users == check {
                    let error = sketch.estimate() as f64 / users as f64 - 1.0;
                    assert!(error.abs() < 3.0 * 1.04 / 128.0, "{error} at {users}");
                    checks.next();
                }
            }
        }
    }

    #[test]
    fn an_empty_sketch_is_zero_and_few_users_are_nearly_exact() {
        let mut sketch = Registers::default();
        assert_eq!(sketch.estimate(), 0);
        for user in 1..=100_u64 {
            sketch.add(UserHash::of(&user.to_string()));
            assert!(sketch.estimate().abs_diff(user) <= 2, "{} for {user}", sketch.estimate());
        }
    }

    #[test]
    fn registers_at_their_limits_have_an_estimate() {
        let mut sketch = Registers::default();
        for number in 0..1 << 14 {
            sketch.set(number, 41);
        }
        assert!(sketch.estimate() > 1 << 50);
        assert_eq!(rank(UserHash::from_raw(0x3ff)), (0, 41), "no one in 40 bits");
        assert_eq!(rank(UserHash::from_raw(u64::MAX)), ((1 << 14) - 1, 1));
        assert_eq!(rank(UserHash::from_raw(1 << 10)), (0, 40));
    }

    proptest! {
        #[test]
        fn the_estimate_never_decreases_and_does_not_depend_on_order(users in prop::collection::vec(any::<u64>(), 0..400), rotate: usize) {
            let (mut sketch, mut other) = (Registers::default(), Registers::default());
            let mut before = 0;
            for &user in &users {
                sketch.add(UserHash::from_raw(user));
                let now = sketch.estimate();
                prop_assert!(now >= before);
                before = now;
            }
            for i in 0..users.len() {
                other.add(UserHash::from_raw(users[(i + rotate % users.len()) % users.len()]));
            }
            prop_assert_eq!(sketch.as_array(), other.as_array());
            prop_assert_eq!(sketch.estimate(), other.estimate());
        }
    }
}
