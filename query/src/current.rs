//! The hour that runs now, kept ready in memory.
//!
//! One request at a time asks the store, at most once per interval; the others are served what is there. Nothing here
//! refreshes by itself: it takes a reader, or the look a second that readiness takes.

use std::sync::Arc;

use arc_swap::{ArcSwapOption, Guard};
use millrace_contracts::Hour;
use tokio::sync::Mutex;

use crate::http::Clock;
use crate::page::{Keep, Page};
use crate::{Config, Hours, Known, Missed, Tier, metrics};

/// What is known about an hour.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Its counts.
    Known(Box<Page>),
    /// Why there are none.
    Missed(Missed),
}

/// What was known about an hour, and when.
#[derive(Debug)]
pub(crate) struct Checked {
    hour: Hour,
    /// Of numbers: when they began to be read. Of a failure: when it was known.
    at_ms: i64,
    /// Rises by one with every check.
    generation: u64,
    /// Whether a store answered, be it that it cannot tell.
    pub(crate) answered: bool,
    pub(crate) outcome: Outcome,
}

impl Checked {
    /// Whether this is about `hour` and younger than `age_ms`. A clock set back makes everything old.
    fn serves(&self, hour: Hour, now_ms: i64, age_ms: i64) -> bool {
        self.hour == hour && (0..age_ms).contains(&(now_ms - self.at_ms))
    }
}

/// The current hour's answer.
pub(crate) struct Current {
    slot: ArcSwapOption<Checked>,
    flight: Mutex<()>,
    refresh_ms: i64,
    stale_after_ms: i64,
}

impl Current {
    pub(crate) fn new(config: &Config) -> Self {
        let ms = |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        Self {
            slot: ArcSwapOption::empty(),
            flight: Mutex::new(()),
            refresh_ms: ms(config.refresh_interval.0),
            stale_after_ms: ms(config.stale_after.0),
        }
    }

    /// What is there, if it need not be checked yet.
    pub(crate) fn fresh(&self, hour: Hour, now_ms: i64) -> Option<Guard<Option<Arc<Checked>>>> {
        let checked = self.slot.load();
        let fresh = checked.as_ref().is_some_and(|checked| checked.serves(hour, now_ms, self.refresh_ms));
        fresh.then_some(checked)
    }

    /// What is there, checked anew where it is due. Waits only for a check whose predecessor is too old to be served.
    pub(crate) async fn get(&self, hour: Hour, hours: &dyn Hours, clock: &Clock) -> Arc<Checked> {
        let before = self.slot.load_full();
        let waited_from = before.as_ref().map_or(0, |checked| checked.generation);
        let _flight = match self.flight.try_lock() {
            Ok(flight) => flight,
            Err(_) => match before.filter(|checked| checked.serves(hour, clock(), self.stale_after_ms)) {
                Some(previous) => return previous,
                None => self.flight.lock().await,
            },
        };
        let now_ms = clock();
        let previous = self.slot.load_full();
        if let Some(checked) = &previous
            && checked.hour == hour
            && (checked.generation > waited_from || checked.serves(hour, now_ms, self.refresh_ms))
        {
            return Arc::clone(checked);
        }
        let checked = Arc::new(self.check(hour, previous.as_deref(), hours, clock).await);
        // A check of an hour that has ended meanwhile must not push out the new hour's.
        if previous.is_none_or(|previous| previous.hour <= hour) {
            self.slot.store(Some(Arc::clone(&checked)));
        }
        checked
    }

    async fn check(&self, hour: Hour, previous: Option<&Checked>, hours: &dyn Hours, clock: &Clock) -> Checked {
        metrics::refreshed();
        let begun_ms = clock();
        let found = hours.read(hour, hour).await;
        let generation = previous.map_or(0, |checked| checked.generation) + 1;
        let answered = !matches!(found, Err(Missed::Unavailable));
        let (at_ms, outcome) = match found {
            Ok(known) => {
                let page = Page::new(Known { tier: Tier::Memory, ..known }, Keep::Moment, clock());
                (begun_ms, Outcome::Known(Box::new(page)))
            }
            Err(missed) => {
                let now_ms = clock();
                let outcome = match previous.filter(|checked| checked.hour == hour).map(|checked| &checked.outcome) {
                    Some(Outcome::Known(page)) if !answered => Outcome::Known(Box::new(page.to_stale(now_ms))),
                    _ => Outcome::Missed(missed),
                };
                (now_ms, outcome)
            }
        };
        Checked { hour, at_ms, generation, answered, outcome }
    }
}
