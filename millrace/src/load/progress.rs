//! Says how far the load is: a bar on a terminal, a line now and then elsewhere. Always on the error output, so that the
//! result stands alone on the other.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::sender::Shared;

const BAR: &str = "{elapsed_precise} [{bar:40}] {pos}/{len} events, {per_sec}, {eta} left";
const REDRAW_EVERY: Duration = Duration::from_millis(200);
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Shows progress until `stop` is cancelled.
pub(crate) async fn show(events: u64, shared: Arc<Shared>, stop: CancellationToken) {
    let bar = ProgressBar::with_draw_target(Some(events), ProgressDrawTarget::stderr());
    bar.set_style(ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar()));
    let (begin, mut last_line) = (Instant::now(), Instant::now());
    while stop.run_until_cancelled(tokio::time::sleep(REDRAW_EVERY)).await.is_some() {
        let done = shared.done.load(Ordering::Relaxed);
        bar.set_position(done);
        if bar.is_hidden() && last_line.elapsed() >= LINE_EVERY {
            last_line = Instant::now();
            let rate = done as f64 / begin.elapsed().as_secs_f64();
            eprintln!("{done} of {events} events, {rate:.0} a second");
        }
    }
    bar.finish_and_clear();
}
