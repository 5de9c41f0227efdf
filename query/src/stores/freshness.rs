//! How far the stores are behind the log: compares what each has counted with the log's ends, as of the last poll.
//!
//! The reader of the log computes this, not the process that counts: one that was killed reports nothing. A store's position
//! is looked up before its counts are read, and positions only grow, so that what this claims of counts is true of them.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use millrace_base::Clock;
use millrace_contracts::{CountedPosition, Topic};
use millrace_log::Log;
use tokio::sync::watch;

use super::port::Tier;
use super::position::{Coverage, MinPositions};
use crate::metrics;

/// The part (1/n) of `query.stale_after` that two remembered ends of the log are apart.
const HISTORY: u32 = 8;

/// What each partition is counted up to; `None` if that is not known.
type Counted = Vec<Option<CountedPosition>>;

/// How far the stores are behind the log.
pub(crate) struct Freshness {
    log: Arc<OnceLock<Log>>,
    clock: Clock,
    stale_after: Duration,
    ends: Mutex<LogEnds>,
    stores: watch::Sender<Arc<StoresProgress>>,
}

/// The progress of each store.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoresProgress {
    pub(crate) live: StoreProgress,
    pub(crate) archive: StoreProgress,
}

/// How far a store's counts hold, as of the last poll.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoreProgress {
    /// By partition; empty before the first poll.
    counted: Counted,
    /// Whether the store answered the last poll. When it answers again, it may be another server with less: a standby that took over.
    answered: bool,
    up_to_ms: Option<i64>,
    /// The number of events in the log that are not counted.
    waiting: u64,
    /// Whether an event is not counted that the log had `query.stale_after` ago.
    behind: bool,
    /// Since when each partition has neither moved nor had everything.
    still_since: Vec<Instant>,
    /// How long the partitions that are behind have not moved: the longest.
    still_for: Duration,
}

/// The ends of the partitions of events.
#[derive(Debug, Default)]
struct LogEnds {
    /// The last ones, and when their look-up began, in ms since the epoch.
    last: Option<(i64, Vec<u64>)>,
    /// Those of the last `query.stale_after`, oldest first.
    history: VecDeque<(Instant, Vec<u64>)>,
    /// Those that were known `query.stale_after` ago: what is below is to be counted.
    due: Vec<u64>,
}

impl Freshness {
    /// Of the stores that are fed from `log`, once that is set.
    pub(crate) fn new(log: Arc<OnceLock<Log>>, clock: Clock, stale_after: Duration) -> Self {
        Self { log, clock, stale_after, ends: Mutex::default(), stores: watch::Sender::new(Arc::default()) }
    }

    /// Polls the ends of the log. If that fails, the last known ones remain.
    pub(crate) async fn poll_log(&self) {
        let Some(log) = self.log.get() else { return };
        let (at_ms, at) = (self.clock.now_ms(), Instant::now());
        match log.ends(Topic::EVENTS).await {
            Ok(ends) => self.ends().record(at_ms, at, ends, self.stale_after),
            Err(error) => tracing::debug!(%error, "cannot look up the ends of the log"),
        }
    }

    /// Records a poll of a store; `None` if it did not answer.
    pub(crate) fn record(&self, tier: Tier, counted: Option<Counted>) {
        let now = Instant::now();
        self.stores.send_modify(|stores| {
            let mut ends = self.ends();
            ends.advance(now, self.stale_after);
            let mut next = StoresProgress::clone(stores);
            if let Some(store) = next.of_mut(tier) {
                *store = store.after(counted, &ends, now);
                if !store.counted.is_empty() {
                    metrics::events_waiting(tier, store.waiting);
                }
            }
            *stores = Arc::new(next);
        });
    }

    /// The progress of the stores, and every later poll of them.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<StoresProgress>> {
        self.stores.subscribe()
    }

    /// Up to where counts hold that are read from a store after this call.
    pub(crate) fn coverage(&self, tier: Tier) -> Coverage {
        let stores = Arc::clone(&self.stores.borrow());
        let Some(store) = stores.of(tier) else { return Coverage::default() };
        Coverage { up_to_ms: store.up_to_ms, log_end: self.log_end_within(Some(store)) }
    }

    /// Whether a store is behind by more than `query.stale_after`.
    pub(crate) fn is_behind(&self, tier: Tier) -> bool {
        self.stores.borrow().of(tier).is_some_and(|store| store.behind)
    }

    /// The time up to which every store that was read counts; `None` if that is not known of one of them.
    pub(crate) fn up_to_ms(&self) -> Option<i64> {
        let stores = Arc::clone(&self.stores.borrow());
        let read = stores.read().map(|(_, store)| store.up_to_ms);
        read.min().flatten()
    }

    /// The number of events in the log, as last known.
    pub(crate) fn log_end(&self) -> u64 {
        self.log_end_within(None).unwrap_or_default()
    }

    /// The number of events in the log, as last known; `None` if the store lacks one of them. On the embedded engine that is
    /// the number at this moment.
    fn log_end_within(&self, store: Option<&StoreProgress>) -> Option<u64> {
        let mut all = 0;
        let mut add = |partition: usize, end: u64| {
            all += end;
            store.is_none_or(|store| store.reached(partition) >= end)
        };
        let has_all = match self.log.get() {
            Some(log @ Log::Embedded(_)) => (0..log.partitions(Topic::EVENTS))
                .all(|partition| add(partition as usize, log.local_end(Topic::EVENTS, partition).unwrap_or_default())),
            _ => match &self.ends().last {
                Some((_, ends)) => ends.iter().enumerate().all(|(partition, &end)| add(partition, end)),
                None => true,
            },
        };
        has_all.then_some(all)
    }

    /// What an operator has to know while a store is behind: "counting stopped 40 s ago, 16,000 events waiting".
    pub(crate) fn notice(&self) -> Option<String> {
        let stores = Arc::clone(&self.stores.borrow());
        let behind: Vec<_> = stores.read().filter(|(_, store)| store.behind).collect();
        let &(name, store) = behind.iter().max_by_key(|(_, store)| store.waiting)?;
        let name = if behind.len() == stores.read().count() { "counting" } else { name };
        let state = if store.still_for < self.stale_after {
            "is behind".to_owned()
        } else {
            format!("stopped {} ago", rounded(store.still_for))
        };
        let events = if store.waiting == 1 { "event" } else { "events" };
        Some(format!("{name} {state}, {} {events} waiting", grouped(store.waiting)))
    }

    fn ends(&self) -> MutexGuard<'_, LogEnds> {
        // Consistent between any two of its calls.
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StoresProgress {
    fn of(&self, tier: Tier) -> Option<&StoreProgress> {
        match tier {
            Tier::Memory => None,
            Tier::Redis => Some(&self.live),
            Tier::Archive => Some(&self.archive),
        }
    }

    fn of_mut(&mut self, tier: Tier) -> Option<&mut StoreProgress> {
        match tier {
            Tier::Memory => None,
            Tier::Redis => Some(&mut self.live),
            Tier::Archive => Some(&mut self.archive),
        }
    }

    /// The stores that were polled, with their names.
    fn read(&self) -> impl Iterator<Item = (&'static str, &StoreProgress)> {
        let all = [("Redis", &self.live), ("the archive", &self.archive)];
        all.into_iter().filter(|(_, store)| !store.counted.is_empty())
    }
}

impl StoreProgress {
    /// Whether the store answered the last poll and has these events.
    pub(crate) fn has(&self, positions: &MinPositions) -> bool {
        self.answered && positions.are_in(&self.counted)
    }

    /// The first offset of a partition that is not counted, as far as that is known.
    fn reached(&self, partition: usize) -> u64 {
        self.counted.get(partition).copied().flatten().map_or(0, |counted| counted.next_offset)
    }

    /// The progress after another poll; `counted` is `None` if the store did not answer.
    fn after(&self, counted: Option<Counted>, log: &LogEnds, now: Instant) -> Self {
        let answered = counted.is_some();
        let counted = counted.unwrap_or_else(|| self.counted.clone());
        let mut next = Self { counted, answered, ..Self::default() };
        let Some((at_ms, ends)) = &log.last else { return next };
        if next.counted.is_empty() {
            return next;
        }
        next.up_to_ms = Some(*at_ms);
        for (partition, &end) in ends.iter().enumerate() {
            let reached = next.reached(partition);
            let still = reached < end && reached == self.reached(partition);
            let since = self.still_since.get(partition).copied().filter(|_| still).unwrap_or(now);
            next.still_since.push(since);
            if reached < end {
                next.waiting += end - reached;
                let log_time = next.counted.get(partition).copied().flatten().map(|counted| counted.log_time_ms);
                next.up_to_ms = next.up_to_ms.zip(log_time).map(|(all, one)| all.min(one));
            }
            if reached < log.due(partition) {
                next.behind = true;
                next.still_for = next.still_for.max(now.saturating_duration_since(since));
            }
        }
        next
    }
}

impl LogEnds {
    fn record(&mut self, at_ms: i64, at: Instant, ends: Vec<u64>, stale_after: Duration) {
        self.advance(at, stale_after);
        let spacing = stale_after / HISTORY;
        if self.history.back().is_none_or(|(last, _)| at.saturating_duration_since(*last) >= spacing) {
            self.history.push_back((at, ends.clone()));
        }
        self.last = Some((at_ms, ends));
    }

    /// Makes due what was known `stale_after` before `now`.
    fn advance(&mut self, now: Instant, stale_after: Duration) {
        let is_due = |(at, _): &(Instant, Vec<u64>)| now.saturating_duration_since(*at) >= stale_after;
        while self.history.front().is_some_and(is_due) {
            self.due = self.history.pop_front().map(|(_, ends)| ends).unwrap_or_default();
        }
    }

    fn due(&self, partition: usize) -> u64 {
        self.due.get(partition).copied().unwrap_or_default()
    }
}

/// A duration in its largest whole unit.
fn rounded(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

/// A number with its thousands separated.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        let separator = if index > 0 && (digits.len() - index).is_multiple_of(3) { "," } else { "" };
        let _ = write!(text, "{separator}{digit}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(partition: u32, next_offset: u64, log_time_ms: i64) -> CountedPosition {
        CountedPosition { partition, next_offset, log_time_ms }
    }

    #[test]
    fn a_store_is_behind_once_it_lacks_an_event_for_longer_than_stale_after() {
        let begin = Instant::now();
        let (mut log, mut store) = (LogEnds::default(), StoreProgress::default());
        let mut look = |seconds: u32, ends: &[u64], counted: Option<Counted>| {
            let now = begin + SECOND * seconds;
            log.record(i64::from(seconds) * 1_000, now, ends.to_vec(), SECOND * 2);
            log.advance(now, SECOND * 2);
            store = store.after(counted, &log, now);
            (store.behind, store.waiting, store.up_to_ms, store.still_for.as_secs())
        };
        assert_eq!(
            look(0, &[5, 0], Some(vec![Some(at(0, 5, 1)), None])),
            (false, 0, Some(0), 0),
            "an empty partition has no counts"
        );
        assert_eq!(
            look(1, &[9, 0], Some(vec![Some(at(0, 5, 7)), None])),
            (false, 4, Some(7), 0),
            "the log time of what is counted"
        );
        assert_eq!(look(2, &[12, 0], Some(vec![Some(at(0, 5, 7)), None])), (false, 7, Some(7), 0));
        assert_eq!(
            look(3, &[12, 0], None),
            (true, 7, Some(7), 3),
            "no answer: the last positions are all that is known"
        );
        assert_eq!(
            look(4, &[12, 0], Some(vec![Some(at(0, 9, 8)), None])),
            (true, 3, Some(8), 0),
            "it moves, but is behind"
        );
        assert_eq!(look(5, &[12, 0], Some(vec![Some(at(0, 12, 9)), None])), (false, 0, Some(5_000), 0));
        assert_eq!(
            look(6, &[12, 1], Some(vec![Some(at(0, 12, 9)), None])),
            (false, 1, None, 0),
            "nothing is known of a partition"
        );
    }

    #[test]
    fn a_store_has_events_while_it_answers() {
        let freshness = Freshness::new(Arc::default(), Clock::system(), SECOND);
        let mut positions = MinPositions::default();
        positions.add("events/0@4", "events").unwrap();
        let has = |tier| {
            let stores = Arc::clone(&freshness.stores.borrow());
            stores.of(tier).unwrap().has(&positions)
        };
        assert!(!has(Tier::Archive), "it was not polled");
        for (counted, expected) in [(Some(4), false), (Some(5), true), (None, false), (Some(5), true)] {
            freshness.record(Tier::Archive, counted.map(|counted| vec![Some(at(0, counted, 1))]));
            assert_eq!((has(Tier::Archive), has(Tier::Redis)), (expected, false), "{counted:?}");
        }
    }

    #[test]
    fn the_history_of_the_log_is_bounded() {
        let begin = Instant::now();
        let mut log = LogEnds::default();
        for look in 0..10_000_u32 {
            log.record(0, begin + Duration::from_millis(10) * look, vec![u64::from(look)], SECOND);
            assert!(log.history.len() <= HISTORY as usize + 1);
            let late = u64::from(look).saturating_sub(log.due(0));
            assert!(look < 200 || (100..130).contains(&late), "{late} looks of 10 ms");
        }
    }

    #[test]
    fn a_notice_is_for_people() {
        let freshness = Freshness::new(Arc::default(), Clock::system(), SECOND);
        assert_eq!(freshness.notice(), None);
        let show = |live: Option<(u64, u64)>, archive: Option<(u64, u64)>| {
            let store = |behind: Option<(u64, u64)>| StoreProgress {
                counted: vec![None],
                behind: behind.is_some(),
                waiting: behind.map_or(0, |(waiting, _)| waiting),
                still_for: SECOND * behind.map_or(0, |(_, seconds)| u32::try_from(seconds).unwrap()),
                ..StoreProgress::default()
            };
            freshness.stores.send_replace(Arc::new(StoresProgress { live: store(live), archive: store(archive) }));
            freshness.notice()
        };
        assert_eq!(show(None, None), None);
        let both = show(Some((16_000, 40)), Some((15_000, 39)));
        assert_eq!(both.as_deref(), Some("counting stopped 40 s ago, 16,000 events waiting"));
        let one = show(None, Some((1, 0)));
        assert_eq!(one.as_deref(), Some("the archive is behind, 1 event waiting"));
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([119, 120, 7_200].map(|seconds| rounded(SECOND * seconds)), ["119 s", "2 min", "2 h"]);
    }

    #[test]
    fn without_a_log_nothing_is_claimed_and_caches_work() {
        let freshness = Freshness::new(Arc::default(), Clock::system(), SECOND);
        freshness.record(Tier::Archive, Some(vec![Some(at(0, 5, 1))]));
        assert_eq!(freshness.coverage(Tier::Archive), Coverage { up_to_ms: None, log_end: Some(0) });
        assert!(!freshness.is_behind(Tier::Archive));
        assert_eq!((freshness.log_end(), freshness.up_to_ms()), (0, None));
    }
}
