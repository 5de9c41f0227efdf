//! What this process has said of an hour, so that it never says less, and does not ask the archive twice within a moment.
//!
//! Counts only grow, but stores lag: one may be behind what another one has answered already. Numbers that are less than
//! those said before are not given out ([`Said::weigh`]). Bounded: the newest hours stay, so that no scan of old ones pushes
//! out what live hours need.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use millrace_contracts::Hour;
use millrace_store::Totals;

use crate::Known;

/// More than the hours of the longest live window, and half a year of them.
const HOURS: usize = 4_096;

/// How long the last numbers hold against lesser ones. A store that is behind for longer is no laggard: somebody made the
/// log anew, and its numbers are the truth now.
const HOLDS_MS: i64 = 600_000;

#[derive(Default)]
pub(crate) struct Said(Mutex<BTreeMap<Hour, Entry>>);

struct Entry {
    known: Known,
    /// When Redis was last asked to be filled with the hour.
    refill_ms: Option<i64>,
}

impl Said {
    /// What was said of an hour, if it was read less than `age_ms` ago.
    pub(crate) fn fresh(&self, hour: Hour, now_ms: i64, age_ms: i64) -> Option<Known> {
        let known = self.lock().get(&hour)?.known;
        (0..age_ms).contains(&(now_ms - known.as_of_ms)).then_some(known)
    }

    /// Takes note of an answer that is to be given; gives back instead, marked stale, what was said before if that is more.
    pub(crate) fn weigh(&self, hour: Hour, current: Hour, known: Known) -> Result<Known, Known> {
        // Nobody has counted anything in hours that have not begun, but for clocks that are a little ahead.
        if hour > current.plus(1) {
            return Ok(known);
        }
        let mut hours = self.lock();
        let refill_ms = match hours.get(&hour) {
            Some(Entry { known: before, .. })
                if is_less(&known.totals, &before.totals) && holds(before, known.as_of_ms) =>
            {
                return Err(Known { tier: crate::Tier::Memory, stale: true, ..*before });
            }
            // A read that began earlier says nothing newer.
            Some(entry) if entry.known.as_of_ms > known.as_of_ms && entry.known.totals == known.totals => {
                return Ok(known);
            }
            Some(entry) => entry.refill_ms,
            None => None,
        };
        hours.insert(hour, Entry { known, refill_ms });
        if hours.len() > HOURS {
            hours.pop_first();
        }
        Ok(known)
    }

    /// Whether a refill of an hour that was just weighed is due and `allowed`, which is asked if it is due; if so, it counts
    /// as asked for.
    pub(crate) fn refill(&self, hour: Hour, now_ms: i64, every_ms: i64, allowed: impl FnOnce() -> bool) -> bool {
        let mut hours = self.lock();
        let Some(entry) = hours.get_mut(&hour) else { return false };
        let due = entry.refill_ms.is_none_or(|asked_ms| !(0..every_ms).contains(&(now_ms - asked_ms))) && allowed();
        if due {
            entry.refill_ms = Some(now_ms);
        }
        due
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Hour, Entry>> {
        // The map is whole between any two of its calls.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Clicks and impressions never fall; users may where a set turns into a sketch.
fn is_less(new: &Totals, old: &Totals) -> bool {
    new.clicks < old.clicks || new.impressions < old.impressions
}

/// A clock set back does not let go.
fn holds(before: &Known, now_ms: i64) -> bool {
    now_ms - before.as_of_ms < HOLDS_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tier;

    fn known(clicks: u64, as_of_ms: i64) -> Known {
        let totals = Totals { clicks, unique_users: 1, ..Totals::default() };
        Known { totals, tier: Tier::Archive, as_of_ms, stale: false }
    }

    const NOW: Hour = Hour::from_index(10_000);

    #[test]
    fn less_is_not_said() {
        let said = Said::default();
        let hour = NOW.plus(-1);
        assert_eq!(said.weigh(hour, NOW, known(5, 100)), Ok(known(5, 100)));
        let remembered = Known { tier: Tier::Memory, stale: true, ..known(5, 100) };
        assert_eq!(said.weigh(hour, NOW, known(4, 200)), Err(remembered));
        assert_eq!(said.weigh(hour, NOW, known(0, 50)), Err(remembered), "nor by a read that began before");
        assert_eq!(said.weigh(NOW, NOW, known(4, 200)), Ok(known(4, 200)), "another hour");
        assert_eq!(said.weigh(hour, NOW, known(6, 300)), Ok(known(6, 300)));
        assert_eq!(said.weigh(hour, NOW, known(5, 300 + HOLDS_MS)), Ok(known(5, 300 + HOLDS_MS)), "not for ever");
    }

    #[test]
    fn an_answer_is_fresh_for_a_while() {
        let said = Said::default();
        said.weigh(NOW, NOW, known(0, 100)).unwrap();
        assert_eq!(said.fresh(NOW, 199, 100), Some(known(0, 100)), "zeros, too");
        assert_eq!(said.fresh(NOW, 200, 100), None);
        assert_eq!(said.fresh(NOW, 99, 100), None, "a clock set back");
        assert_eq!(said.fresh(NOW.plus(1), 100, 100), None);
    }

    #[test]
    fn a_refill_is_asked_for_once_in_a_while() {
        let said = Said::default();
        assert!(!said.refill(NOW, 0, 10, || true), "nothing was said of it");
        said.weigh(NOW, NOW, known(1, 0)).unwrap();
        assert!(!said.refill(NOW, 0, 10, || false));
        assert!(said.refill(NOW, 0, 10, || true), "what was not allowed was not asked for");
        said.weigh(NOW, NOW, known(2, 5)).unwrap();
        assert!(!said.refill(NOW, 9, 10, || unreachable!("it is not due")));
        assert!(said.refill(NOW, 10, 10, || true));
    }

    #[test]
    fn a_scan_of_old_hours_pushes_out_old_hours() {
        let said = Said::default();
        said.weigh(NOW, NOW, known(1, 0)).unwrap();
        for i in 0..2 * i64::try_from(HOURS).unwrap() {
            said.weigh(NOW.plus(-i - 1), NOW, known(1, 0)).unwrap();
            said.weigh(NOW.plus(i + 2), NOW, known(0, 0)).unwrap();
        }
        assert_eq!(said.lock().len(), HOURS);
        assert!(said.fresh(NOW, 0, 1).is_some());
    }
}
