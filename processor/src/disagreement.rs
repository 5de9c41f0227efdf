//! Detects that the command service accepts other timestamps than this process counts: the settings of section `[analytics]`
//! differ between processes.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use millrace_contracts::EventWindow;
use tokio::sync::watch;

/// The minimum time between two log messages.
const LOG_INTERVAL: Duration = Duration::from_mins(1);

/// Logs contradictions, and publishes whether there were any.
#[derive(Debug)]
pub(crate) struct Disagreement {
    window: EventWindow,
    last_logged: Mutex<Option<Instant>>,
    found: watch::Sender<bool>,
}

impl Disagreement {
    pub(crate) fn new(window: EventWindow) -> Self {
        Self { window, last_logged: Mutex::default(), found: watch::Sender::new(false) }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<bool> {
        self.found.subscribe()
    }

    /// Records the contradictions of a committed step.
    pub(crate) fn record(&self, partition: u32, events: u64) {
        if events == 0 {
            return;
        }
        self.found.send_replace(true);
        let mut last = self.last_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            return;
        }
        *last = Some(Instant::now());
        let EventWindow { accept_from_ms, future_tolerance } = self.window;
        tracing::error!(
            partition,
            events,
            accept_from_ms,
            %future_tolerance,
            "quarantined events that the command service must refuse by the settings of this process: processes disagree \
             on analytics.accept_from or analytics.future_tolerance (compare millrace_agreed_setting), or another producer \
             writes to analytics.events"
        );
    }
}
