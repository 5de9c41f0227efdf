//! The streams of HTTP/2. hyper runs each as a task of its own; here the task also ends when its client stops to take the
//! answer. The timeouts of the connection do not notice that: its socket is writable, and only the stream's window is
//! closed.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use hyper::rt::Executor;
use metrics::counter;
use millrace_contracts::metric;
use tokio::time::{Instant, sleep_until};

use super::HttpLimits;
use super::guard::{instant, now};

/// The longest time without progress of an answer while answers use up most of their bound.
const HURRIED: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// The progress of the stream whose task this is.
    static PROGRESS: Arc<Progress>;
}

/// Whether the client takes the answer of a stream.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// When hyper took the piece that it has not sent yet (ms of the guard's clock); 0 without one.
    since: AtomicU64,
}

impl Progress {
    /// That of the stream whose task this is; `None` in HTTP/1.
    pub(super) fn of_this_stream() -> Option<Arc<Self>> {
        PROGRESS.try_with(Clone::clone).ok()
    }

    /// hyper takes a piece: it asks for the next one once the client's window has room for this one.
    pub(super) fn begin(&self) {
        self.since.store(now(), Ordering::Relaxed);
    }

    /// The piece is on its way.
    pub(super) fn end(&self) {
        self.since.store(0, Ordering::Relaxed);
    }

    /// When hyper took the piece that it has not sent.
    fn waiting_since(&self) -> Option<Instant> {
        match self.since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(instant(since)),
        }
    }
}

/// The answers of a listener that HTTP/2 clients have yet to take.
#[derive(Debug, Clone)]
pub(super) struct Deliveries {
    number: Arc<AtomicUsize>,
    max: usize,
}

/// One answer on its way; dropping it ends it.
#[derive(Debug)]
pub(super) struct Delivery(Arc<AtomicUsize>);

impl Deliveries {
    pub(super) fn new(max: usize) -> Self {
        Self { number: Arc::default(), max }
    }

    /// One more answer, also beyond the bound: without it the client would repeat what has taken effect.
    pub(super) fn add(&self) -> Delivery {
        self.number.fetch_add(1, Ordering::Relaxed);
        Delivery(self.number.clone())
    }

    /// Whether the bound is used up. To be asked before a request is handled.
    pub(super) fn is_full(&self) -> bool {
        self.number.load(Ordering::Relaxed) >= self.max
    }

    /// Whether three quarters of the bound are used up.
    fn are_many(&self) -> bool {
        self.number.load(Ordering::Relaxed) >= self.max / 4 * 3
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs the streams of HTTP/2 connections.
#[derive(Debug, Clone)]
pub(super) struct StreamExecutor {
    write_timeout: Duration,
    deliveries: Deliveries,
}

impl StreamExecutor {
    pub(super) fn new(limits: &HttpLimits, deliveries: Deliveries) -> Self {
        Self { write_timeout: limits.write_timeout.0, deliveries }
    }

    /// Ends once a piece of the answer waits for too long.
    async fn stalled(&self, progress: &Progress) {
        let mut timer = pin!(None);
        poll_fn(|cx| {
            loop {
                let Some(since) = progress.waiting_since() else { return Poll::Pending };
                let waited = since.elapsed();
                let hurried = self.deliveries.are_many();
                if waited >= if hurried { self.write_timeout.min(HURRIED) } else { self.write_timeout } {
                    return Poll::Ready(());
                }
                // Once a second, to notice when answers become many.
                let due = (since + self.write_timeout).min(Instant::now() + HURRIED);
                timer.set(Some(sleep_until(due)));
                let Some(sleep) = timer.as_mut().as_pin_mut() else { return Poll::Pending };
                if sleep.poll(cx).is_pending() {
                    return Poll::Pending;
                }
            }
        })
        .await;
    }
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future + Send + 'static,
{
    fn execute(&self, stream: F) {
        let (executor, progress) = (self.clone(), Arc::new(Progress::default()));
        tokio::spawn(PROGRESS.scope(progress.clone(), async move {
            tokio::select! {
                biased;
                _ = stream => {}
                // Dropping the stream resets it.
                () = executor.stalled(&progress) => {
                    counter!(metric::HTTP_TIMEOUTS.name, "reason" => "stream").increment(1);
                }
            }
        }));
    }
}
