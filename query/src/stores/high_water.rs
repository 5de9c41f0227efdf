//! Monotonic reads: the highest counts served per hour, so that no later read serves lower ones.
//!
//! Counts only grow, but one store may lag behind another that has served the hour already. [`HighWaterMarks::admit`]
//! replaces such lower counts by those served before. The marks also serve as the cache of archive answers, for
//! `query.archive_cache_ttl`. Bounded: holds the newest hours, so that a scan of old hours does not evict the live ones.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use millrace_contracts::Hour;
use millrace_store::Totals;

use super::port::{HourCounts, Tier};

/// Half a year of hours, and more than the longest live window.
const MAX_HOURS: usize = 4_096;

/// How long a mark holds against lower counts. A store that stays lower for longer does not lag: the topic was recreated,
/// and the store's counts are right.
const MARK_TTL_MS: i64 = 600_000;

#[derive(Default)]
pub(crate) struct HighWaterMarks(Mutex<BTreeMap<Hour, Mark>>);

struct Mark {
    counts: HourCounts,
    /// When the last refill request for the hour was sent, in ms since the epoch.
    refill_ms: Option<i64>,
}

impl HighWaterMarks {
    /// The counts served last for an hour, if their read began less than `max_age_ms` ago and they contain every event of a
    /// log with so many: counts are not cached past a write that is known.
    pub(crate) fn recent(&self, hour: Hour, now_ms: i64, max_age_ms: i64, log_end: u64) -> Option<HourCounts> {
        let counts = self.lock().get(&hour)?.counts;
        let is_recent = (0..max_age_ms).contains(&(now_ms - counts.as_of_ms));
        (is_recent && counts.coverage.log_end == Some(log_end)).then_some(counts)
    }

    /// Admits counts to be served, and raises the hour's mark to them.
    ///
    /// # Errors
    /// The counts served before, marked stale, if they are higher. They are to be served instead.
    pub(crate) fn admit(&self, hour: Hour, current: Hour, counts: HourCounts) -> Result<HourCounts, HourCounts> {
        // Future hours have no counts. The next one may, from clients whose clocks are ahead.
        if hour > current.plus(1) {
            return Ok(counts);
        }
        let mut marks = self.lock();
        let refill_ms = match marks.get(&hour) {
            Some(Mark { counts: served, .. })
                if is_lower(&counts.totals, &served.totals) && holds(served, counts.as_of_ms) =>
            {
                return Err(HourCounts { tier: Tier::Memory, stale: true, ..*served });
            }
            // The same counts from an earlier read: the mark is newer already.
            Some(mark) if mark.counts.as_of_ms > counts.as_of_ms && mark.counts.totals == counts.totals => {
                return Ok(counts);
            }
            Some(mark) => mark.refill_ms,
            None => None,
        };
        marks.insert(hour, Mark { counts, refill_ms });
        if marks.len() > MAX_HOURS {
            marks.pop_first();
        }
        Ok(counts)
    }

    /// Whether to send a refill request for an hour that was just admitted: none was sent within `interval_ms`, and
    /// `permit`, called only then, returns true. Records the request as sent.
    pub(crate) fn claim_refill(
        &self,
        hour: Hour,
        now_ms: i64,
        interval_ms: i64,
        permit: impl FnOnce() -> bool,
    ) -> bool {
        let mut marks = self.lock();
        let Some(mark) = marks.get_mut(&hour) else { return false };
        let due = mark.refill_ms.is_none_or(|sent_ms| !(0..interval_ms).contains(&(now_ms - sent_ms)));
        let claimed = due && permit();
        if claimed {
            mark.refill_ms = Some(now_ms);
        }
        claimed
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Hour, Mark>> {
        // The map is consistent between any two of its calls, so a panic elsewhere does not harm it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compares clicks and impressions, which never fall. Unique users may, when a set turns into a sketch.
fn is_lower(new: &Totals, served: &Totals) -> bool {
    new.clicks < served.clicks || new.impressions < served.impressions
}

/// Whether a mark is younger than [`MARK_TTL_MS`]. A clock set back does not expire it.
fn holds(served: &HourCounts, now_ms: i64) -> bool {
    now_ms - served.as_of_ms < MARK_TTL_MS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::position::Coverage;

    fn counts(clicks: u64, as_of_ms: i64) -> HourCounts {
        let totals = Totals { clicks, unique_users: 1, ..Totals::default() };
        let coverage = Coverage { up_to_ms: None, log_end: Some(7) };
        HourCounts { totals, tier: Tier::Archive, as_of_ms, stale: false, coverage }
    }

    const NOW: Hour = Hour::from_index(10_000);

    #[test]
    fn lower_counts_are_not_admitted() {
        let marks = HighWaterMarks::default();
        let hour = NOW.plus(-1);
        assert_eq!(marks.admit(hour, NOW, counts(5, 100)), Ok(counts(5, 100)));
        let served = HourCounts { tier: Tier::Memory, stale: true, ..counts(5, 100) };
        assert_eq!(marks.admit(hour, NOW, counts(4, 200)), Err(served));
        assert_eq!(marks.admit(hour, NOW, counts(0, 50)), Err(served), "nor from a read that began earlier");
        assert_eq!(marks.admit(NOW, NOW, counts(4, 200)), Ok(counts(4, 200)), "of another hour");
        assert_eq!(marks.admit(hour, NOW, counts(6, 300)), Ok(counts(6, 300)));
        let later = counts(5, 300 + MARK_TTL_MS);
        assert_eq!(marks.admit(hour, NOW, later), Ok(later), "the mark has expired");
    }

    #[test]
    fn counts_are_recent_for_their_ttl() {
        let marks = HighWaterMarks::default();
        marks.admit(NOW, NOW, counts(0, 100)).unwrap();
        assert_eq!(marks.recent(NOW, 199, 100, 7), Some(counts(0, 100)), "zeros, too");
        assert_eq!(marks.recent(NOW, 199, 100, 8), None, "an event came since, or one was not counted");
        assert_eq!(marks.recent(NOW, 200, 100, 7), None);
        assert_eq!(marks.recent(NOW, 99, 100, 7), None, "a clock set back");
        assert_eq!(marks.recent(NOW.plus(1), 100, 100, 7), None);
    }

    #[test]
    fn one_refill_request_per_interval() {
        let marks = HighWaterMarks::default();
        assert!(!marks.claim_refill(NOW, 0, 10, || true), "the hour was never served");
        marks.admit(NOW, NOW, counts(1, 0)).unwrap();
        assert!(!marks.claim_refill(NOW, 0, 10, || false));
        assert!(marks.claim_refill(NOW, 0, 10, || true), "a refused permit records no request");
        marks.admit(NOW, NOW, counts(2, 5)).unwrap();
        assert!(!marks.claim_refill(NOW, 9, 10, || unreachable!("not due")));
        assert!(marks.claim_refill(NOW, 10, 10, || true));
    }

    #[test]
    fn a_scan_of_old_hours_evicts_old_hours() {
        let marks = HighWaterMarks::default();
        marks.admit(NOW, NOW, counts(1, 0)).unwrap();
        for i in 0..2 * i64::try_from(MAX_HOURS).unwrap() {
            marks.admit(NOW.plus(-i - 1), NOW, counts(1, 0)).unwrap();
            marks.admit(NOW.plus(i + 2), NOW, counts(0, 0)).unwrap();
        }
        assert_eq!(marks.lock().len(), MAX_HOURS);
        assert!(marks.recent(NOW, 0, 1, 7).is_some());
    }
}
