//! What a push subscription's endpoint can take now: window, circuit breaker, pauses, rate. Pure; the caller has the clock.

use std::collections::VecDeque;

use millrace_contracts::topics::{AttemptError, AttemptFailure, AttemptView, RecentAttempts};

use super::attempt_history::AttemptHistory;

/// Most requests of a subscription in flight.
const MAX_WINDOW: u32 = 64;
/// The breaker opens once so many requests of the last five minutes were made, and so many percent of them failed.
const LEAST_REQUESTS: u32 = 10;
const FAILED_PERCENT: u32 = 70;
/// The last five minutes, in portions.
const PORTIONS: i64 = 10;
const PORTION_MS: i64 = 30_000;
/// The pause of an open breaker until its probe; doubles with each failed one.
const FIRST_OPEN_MS: i64 = 30_000;
const MAX_OPEN_MS: i64 = 600_000;
/// An endpoint that only failed for so long is suspended: 5 days.
pub(crate) const GIVE_UP_MS: i64 = 5 * 24 * 3_600_000;
/// An endpoint that takes longer than this shares the bulkhead of those that fail.
pub(crate) const SLOW_MS: u64 = 1_000;
/// Attempts that are remembered.
const MAX_RETAINED_ATTEMPTS: usize = 20;

/// The endpoint of a subscription, as its attempts went.
#[derive(Debug)]
pub(crate) struct Endpoint {
    window: u32,
    in_flight: u32,
    breaker: Breaker,
    /// The endpoint requested a rest until then (Retry-After), ms since the epoch.
    paused_until_ms: i64,
    /// When the next request is due under the rate, in µs since the epoch.
    rate_next_us: i64,
    /// Since when every attempt failed, ms since the epoch.
    failing_since_ms: Option<i64>,
    /// Attempts that began earlier say nothing about the endpoint as it is now, ms since the epoch.
    since_ms: i64,
    /// The last attempt failed or was slow.
    troubled: bool,
    attempts: VecDeque<AttemptView>,
    recent: AttemptHistory,
    last_failure: Option<AttemptFailure>,
    /// A turn is at work, and whether there is a reason for another one.
    pub(crate) busy: bool,
    pub(crate) again: bool,
    /// The time of its timer, ms since the epoch.
    pub(crate) timer_ms: Option<i64>,
}

/// Requests and failures of the last five minutes, and whether further ones are held back.
#[derive(Debug, Default)]
struct Breaker {
    portions: VecDeque<(i64, u32, u32)>,
    open: Option<Open>,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    until_ms: i64,
    pause_ms: i64,
}

impl Breaker {
    fn record(&mut self, now_ms: i64, failed: bool) {
        let portion = now_ms / PORTION_MS;
        if self.portions.back().is_none_or(|(known, ..)| *known < portion) {
            self.portions.push_back((portion, 0, 0));
        }
        while self.portions.front().is_some_and(|(known, ..)| portion - known >= PORTIONS) {
            self.portions.pop_front();
        }
        if let Some((_, requests, failures)) = self.portions.back_mut() {
            *requests += 1;
            *failures += u32::from(failed);
        }
        match (&mut self.open, failed) {
            (Some(_), false) => {
                self.open = None;
                self.portions.clear();
            }
            // Of a request that was under way before the breaker opened: only the probe's result counts.
            (Some(open), true) if now_ms < open.until_ms => {}
            (Some(open), true) => {
                open.pause_ms = (open.pause_ms * 2).min(MAX_OPEN_MS);
                open.until_ms = now_ms + open.pause_ms;
            }
            (None, _) => {
                let (requests, failures) = self
                    .portions
                    .iter()
                    .fold((0, 0), |(all, bad), (_, requests, failures)| (all + requests, bad + failures));
                if requests >= LEAST_REQUESTS && failures * 100 >= requests * FAILED_PERCENT {
                    self.open = Some(Open { until_ms: now_ms + FIRST_OPEN_MS, pause_ms: FIRST_OPEN_MS });
                }
            }
        }
    }
}

/// How an attempt ended, for the endpoint.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) now_ms: i64,
    pub(crate) slow: bool,
    /// `None`: a success.
    pub(crate) failure: Option<AttemptFailure>,
    /// A status that is permanent by the subscription's list says nothing about the endpoint.
    pub(crate) permanent: bool,
}

impl Endpoint {
    /// A fresh endpoint. `failing_since_ms`: of the oldest message in retry.
    pub(crate) fn new(failing_since_ms: Option<i64>) -> Self {
        Self {
            window: 1,
            in_flight: 0,
            breaker: Breaker::default(),
            paused_until_ms: 0,
            rate_next_us: 0,
            failing_since_ms,
            since_ms: 0,
            troubled: false,
            attempts: VecDeque::new(),
            recent: AttemptHistory::default(),
            last_failure: None,
            busy: false,
            again: false,
            timer_ms: None,
        }
    }

    /// How many requests may begin now, with a bound of requests a minute; else when to look again, ms since the epoch.
    pub(crate) fn capacity(&self, now_ms: i64, per_minute: Option<u32>) -> Result<u32, Option<i64>> {
        if self.paused_until_ms > now_ms {
            return Err(Some(self.paused_until_ms));
        }
        if let Some(open) = self.breaker.open {
            return match (open.until_ms > now_ms, self.in_flight) {
                (true, _) => Err(Some(open.until_ms)),
                (false, 0) => Ok(1),
                (false, _) => Err(None),
            };
        }
        let free = self.window.saturating_sub(self.in_flight);
        if free == 0 {
            return Err(None);
        }
        if per_minute.is_none() {
            return Ok(free);
        }
        // One at a time: a rate has no bursts.
        if self.rate_next_us > now_ms * 1_000 { Err(Some(self.rate_next_us / 1_000 + 1)) } else { Ok(1) }
    }

    /// A request begins.
    pub(crate) fn begin(&mut self, now_ms: i64, per_minute: Option<u32>) {
        self.in_flight += 1;
        if let Some(rate) = per_minute {
            self.rate_next_us = self.rate_next_us.max(now_ms * 1_000) + 60_000_000 / i64::from(rate);
        }
    }

    /// A request ended.
    pub(crate) fn end(&mut self, ended: Ended, attempt: AttemptView) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if attempt.at_ms < self.since_ms {
            return;
        }
        let failed = ended.failure.is_some() && !ended.permanent;
        self.window = if failed { (self.window / 2).max(1) } else { (self.window + 1).min(MAX_WINDOW) };
        self.breaker.record(ended.now_ms, failed);
        self.troubled = failed || ended.slow;
        self.failing_since_ms = failed.then_some(self.failing_since_ms.unwrap_or(ended.now_ms));
        self.last_failure = ended.failure;
        self.recent.push(attempt.latency_ms, ended.failure.is_none());
        self.attempts.truncate(MAX_RETAINED_ATTEMPTS - 1);
        self.attempts.push_front(attempt);
    }

    /// The endpoint requests a rest.
    pub(crate) fn pause(&mut self, until_ms: i64) {
        self.paused_until_ms = self.paused_until_ms.max(until_ms);
    }

    /// Whether it shares the bulkhead of those that fail or are slow.
    pub(crate) fn is_troubled(&self) -> bool {
        self.troubled
    }

    /// Whether it only failed for as long as [`GIVE_UP_MS`].
    pub(crate) fn is_given_up(&self, now_ms: i64) -> bool {
        self.failing_since_ms.is_some_and(|since| now_ms - since >= GIVE_UP_MS)
    }

    /// The subscription was resumed, or its settings changed: what was known of the endpoint no longer holds.
    pub(crate) fn forget(&mut self, now_ms: i64) {
        let (in_flight, busy, again, timer_ms) = (self.in_flight, self.busy, self.again, self.timer_ms);
        let attempts = std::mem::take(&mut self.attempts);
        *self = Self { in_flight, busy, again, timer_ms, attempts, since_ms: now_ms, ..Self::new(None) };
    }

    /// When it can be tried next, if not now, ms since the epoch.
    pub(crate) fn held_until(&self, now_ms: i64) -> Option<i64> {
        let open = self.breaker.open.map(|open| open.until_ms);
        open.into_iter().chain([self.paused_until_ms]).filter(|until| *until > now_ms).max()
    }

    pub(crate) fn last_error(&self) -> Option<AttemptError> {
        self.last_failure.map(|failure| failure.error)
    }

    /// How the last attempts ended.
    pub(crate) fn recent(&self) -> Option<RecentAttempts> {
        self.recent.summary()
    }

    pub(crate) fn attempts(&self) -> impl Iterator<Item = &AttemptView> {
        self.attempts.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(at_ms: i64) -> AttemptView {
        AttemptView { offset: 1, at_ms, attempt: 1, status: None, latency_ms: 1, error: None, answer: None }
    }

    fn end(endpoint: &mut Endpoint, now_ms: i64, failed: bool) {
        endpoint.begin(now_ms, None);
        finish(endpoint, now_ms, failed);
    }

    fn finish(endpoint: &mut Endpoint, now_ms: i64, failed: bool) {
        let failure = AttemptFailure { at_ms: now_ms, error: AttemptError::HttpStatus, status: Some(500) };
        let ended = Ended { now_ms, slow: false, failure: failed.then_some(failure), permanent: false };
        endpoint.end(ended, attempt(now_ms));
    }

    #[test]
    fn the_window_grows_by_successes_and_halves_by_failures() {
        let mut endpoint = Endpoint::new(None);
        assert_eq!(endpoint.capacity(0, None), Ok(1));
        for _ in 0..100 {
            end(&mut endpoint, 0, false);
        }
        assert_eq!(endpoint.capacity(0, None), Ok(64));
        end(&mut endpoint, 0, true);
        assert_eq!((endpoint.capacity(0, None), endpoint.last_error()), (Ok(32), Some(AttemptError::HttpStatus)));
        endpoint.begin(0, None);
        assert_eq!(endpoint.capacity(0, None), Ok(31));
    }

    #[test]
    fn the_breaker_opens_probes_with_longer_pauses_and_closes_by_one_success() {
        let mut endpoint = Endpoint::new(None);
        for _ in 0..9 {
            end(&mut endpoint, 1_000, true);
        }
        assert_eq!(endpoint.capacity(1_000, None), Ok(1));
        end(&mut endpoint, 1_000, true);
        let mut now = 1_000;
        for pause in [30_000, 60_000, 120_000, 240_000, 480_000, 600_000, 600_000] {
            assert_eq!(endpoint.capacity(now, None), Err(Some(now + pause)));
            assert_eq!(endpoint.held_until(now), Some(now + pause));
            now += pause;
            assert_eq!(endpoint.capacity(now, None), Ok(1));
            endpoint.begin(now, None);
            // One probe at a time.
            assert_eq!(endpoint.capacity(now, None), Err(None));
            finish(&mut endpoint, now, true);
        }
        now += 600_000;
        end(&mut endpoint, now, false);
        assert_eq!((endpoint.capacity(now, None), endpoint.held_until(now)), (Ok(2), None));
    }

    #[test]
    fn old_failures_are_forgotten_and_five_days_of_them_give_up() {
        let mut endpoint = Endpoint::new(None);
        for n in 0..40 {
            end(&mut endpoint, n * 60_000, true);
            assert!(endpoint.held_until(n * 60_000).is_none(), "five failures in five minutes");
        }
        assert!(!endpoint.is_given_up(GIVE_UP_MS - 1) && endpoint.is_given_up(GIVE_UP_MS));
        end(&mut endpoint, GIVE_UP_MS, false);
        assert!(!endpoint.is_given_up(3 * GIVE_UP_MS));
        assert!(Endpoint::new(Some(0)).is_given_up(GIVE_UP_MS));
    }

    #[test]
    fn what_began_before_it_was_resumed_does_not_count() {
        let mut endpoint = Endpoint::new(Some(0));
        (0..2).for_each(|_| endpoint.begin(0, None));
        endpoint.forget(5);
        end(&mut endpoint, 4, true);
        assert!(endpoint.last_error().is_none() && !endpoint.is_given_up(2 * GIVE_UP_MS));
    }

    #[test]
    fn a_rest_and_a_rate_hold_requests_back() {
        let mut endpoint = Endpoint::new(None);
        endpoint.pause(500);
        assert_eq!((endpoint.capacity(499, None), endpoint.capacity(500, None)), (Err(Some(500)), Ok(1)));
        for now in [1_000, 1_500, 2_000] {
            assert_eq!(endpoint.capacity(now, Some(120)), Ok(1));
            endpoint.begin(now, Some(120));
            finish(&mut endpoint, now, false);
            assert_eq!(endpoint.capacity(now, Some(120)), Err(Some(now + 501)));
        }
    }
}
