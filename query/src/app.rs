//! What the handlers of reads share: the read models, the current hour in memory, and reads of other hours.

use std::sync::Arc;
use std::time::Duration;

use millrace_base::Clock;
use millrace_contracts::{Hour, Names, Topic};
use millrace_service::Problem;
use millrace_service::health::Health;
use millrace_service::net::MemoryBudget;

use crate::analytics::current::{CurrentHour, HourResult, HourSnapshot};
use crate::analytics::render::{HourResponse, MaxAge};
use crate::analytics::single_flight::SingleFlight;
use crate::config::Config;
use crate::metrics::{self, Metrics};
use crate::readiness::Readiness;
use crate::stores::port::{HourReader, ReadError};

/// `Retry-After` of a 503.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(crate) struct App {
    pub(crate) hours: Arc<dyn HourReader>,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) max_range_hours: u32,
    /// The full name of the topic of events.
    topic: String,
    /// Memory of the encoders of compressed responses.
    pub(crate) encoders: MemoryBudget,
    current: CurrentHour,
    flights: SingleFlight,
    readiness: Readiness,
}

impl App {
    pub(crate) fn new(
        config: &Config,
        hours: Arc<dyn HourReader>,
        names: &Names,
        health: &Health,
        clock: Clock,
    ) -> Arc<Self> {
        Arc::new(Self {
            hours,
            clock,
            metrics: Metrics::new(),
            max_range_hours: config.max_range_hours,
            topic: names.topic(&Topic::EVENTS),
            encoders: MemoryBudget::new(config.max_encoder_memory.0),
            current: CurrentHour::new(config),
            flights: SingleFlight::default(),
            readiness: Readiness::new(health.component("query")),
        })
    }

    /// Updates readiness. Reads the current hour, unless a read within `query.refresh_interval` did.
    pub(crate) async fn probe(&self) {
        self.current_hour(Hour::of_ms(self.clock.now_ms())).await;
        self.readiness.notice(self.hours.notice());
    }

    /// The full name of the topic of events, and the number of its partitions.
    pub(crate) fn events(&self) -> (&str, u32) {
        (&self.topic, self.hours.partitions())
    }

    /// The snapshot of the current hour if it needs no refresh. Never waits; the path of hot reads.
    pub(crate) fn fresh_snapshot(&self, hour: Hour, now_ms: i64) -> Option<arc_swap::Guard<Option<Arc<HourSnapshot>>>> {
        self.current.fresh(hour, now_ms)
    }

    /// The snapshot of the current hour, refreshed if it is due.
    pub(crate) async fn current_hour(&self, current: Hour) -> Arc<HourSnapshot> {
        let snapshot = self.current.get(current, &*self.hours, &self.clock).await;
        self.readiness.record(snapshot.store_available);
        snapshot
    }

    /// Reads an hour that is not the current one. Concurrent reads of the same hour share one.
    pub(crate) async fn other_hour(&self, hour: Hour, current: Hour) -> Arc<HourResult> {
        let read = async {
            let max_age = if hour < current { MaxAge::Minute } else { MaxAge::Second };
            let counts = self.hours.read(hour, current).await?;
            Ok(Box::new(HourResponse::new(counts, max_age, self.clock.now_ms())))
        };
        self.flights.join(hour, read).await
    }
}

/// The 503 for a failed read. Counts it.
pub(crate) fn unavailable(error: ReadError) -> Problem {
    let (code, detail) = error.code();
    metrics::read_unavailable(code);
    Problem::new(code, detail).retry_after(RETRY_AFTER)
}
