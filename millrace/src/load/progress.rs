//! Progress of a load: a bar on a terminal, otherwise a line now and then. Always on standard error, so that standard output
//! contains nothing but the result.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::sync::CancellationToken;

const BAR: &str = "{elapsed_precise} [{bar:40}] {pos}/{len} events, {per_sec}, {eta} left";
const REDRAW_INTERVAL: Duration = Duration::from_millis(200);
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// The state that all connections of a load share.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// Events with a final outcome.
    pub(crate) done: AtomicU64,
    /// Ends the sending: by an interrupt, or by a connection that ran out of patience, so that no other one waits as long.
    pub(crate) stop: CancellationToken,
    /// Why the last attempt to connect failed.
    unreachable: Mutex<Option<String>>,
}

impl Progress {
    /// Records why an attempt to connect failed.
    pub(crate) fn failed_to_connect(&self, why: String) {
        *self.unreachable.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
    }

    /// Why the last attempt to connect failed, if one did.
    pub(crate) fn why_unreachable(&self) -> Option<String> {
        self.unreachable.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Shows progress until `stop` is canceled.
pub(crate) async fn show(events: u64, progress: Arc<Progress>, stop: CancellationToken) {
    let bar = ProgressBar::with_draw_target(Some(events), ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar()));
    let (begin, mut last_line) = (Instant::now(), Instant::now());
    while stop.run_until_cancelled(tokio::time::sleep(REDRAW_INTERVAL)).await.is_some() {
        let done = progress.done.load(Ordering::Relaxed);
        bar.set_position(done);
        if bar.is_hidden() && last_line.elapsed() >= LINE_INTERVAL {
            last_line = Instant::now();
            let rate = done as f64 / begin.elapsed().as_secs_f64();
            eprintln!("{done} of {events} events, {rate:.0} per second");
        }
    }
    bar.finish_and_clear();
}
