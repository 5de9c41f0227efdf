//! `GET /analytics/live`: the current hour as server-sent events, whenever it changes.
//!
//! One task reads and encodes for every subscriber, and runs only while there is one: [`publish`] reads the current hour,
//! encodes one event per change, and publishes it to a `watch` channel. A slow subscriber skips events and gets the newest;
//! no event depends on an earlier one.
//!
//! axum's `Sse` would encode once, too, but its events own their buffers, so that each subscriber copies each event. At the
//! defaults of 10,000 streams and an event per 250 ms these are 40,000 allocations and 11 MB per second. Here every
//! subscriber sends the same [`Bytes`].
//!
//! An event's id is the counts themselves, so that any instance can resume a stream without repeating an event or going
//! back to lower counts.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures::stream;
use mediatype::MediaType;
use mediatype::names::{EVENT_STREAM, TEXT};
use millrace_contracts::{Code, Hour};
use millrace_service::http::{Endless, negotiate};
use millrace_service::{Problem, spread_retry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::event::{EventId, EventKey, LiveEvent};
use crate::app::App;
use crate::config::Config;
use crate::metrics;

static AVAILABLE: [MediaType<'static>; 1] = [MediaType::new(TEXT, EVENT_STREAM)];
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
pub(crate) const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The range of the random reconnection time of clients, so that they do not reconnect all at once.
const RETRY_MS: Range<u16> = 1_000..5_000;

/// Events that a resumed stream skips while this instance lags behind the one that served the client before.
const MAX_SKIPPED_EVENTS: u8 = 20;

/// The live stream of a process, shared by its subscribers.
pub(crate) struct LiveFeed {
    app: Arc<App>,
    channel: watch::Sender<FeedState>,
    publishing: AtomicBool,
    permits: Arc<Semaphore>,
    stop: CancellationToken,
    interval: Duration,
    heartbeat: Duration,
}

#[derive(Clone)]
enum FeedState {
    /// No event yet, or no subscriber.
    Idle,
    Event(LiveEvent),
    /// The process shuts down.
    End,
}

impl LiveFeed {
    /// A feed without subscribers. Its streams end when `stop` is canceled.
    pub(crate) fn new(config: &Config, app: Arc<App>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            app,
            channel: watch::Sender::new(FeedState::Idle),
            publishing: AtomicBool::new(false),
            permits: Arc::new(Semaphore::new(config.max_live_streams.min(Semaphore::MAX_PERMITS))),
            stop,
            interval: config.live_interval.0,
            heartbeat: config.live_heartbeat.0,
        })
    }
}

pub(crate) async fn live(State(feed): State<Arc<LiveFeed>>, request: Request) -> Response {
    if negotiate(request.headers(), &AVAILABLE).is_none() {
        return Problem::new(Code::NotAcceptable, "available is text/event-stream").field("accept").into_response();
    }
    let Ok(permit) = Arc::clone(&feed.permits).try_acquire_owned() else {
        metrics::read_unavailable(Code::Overloaded);
        return Problem::new(Code::Overloaded, "too many live streams are open")
            .retry_after(spread_retry(Duration::from_secs(5)))
            .into_response();
    };
    let last = request.headers().get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).and_then(EventId::parse);
    let subscriber = Subscriber::new(&feed, permit, last);
    let begin = Bytes::from(format!("retry: {}\n\n", fastrand::u16(RETRY_MS)));
    let events = stream::unfold((Some(begin), subscriber), async |(begin, mut subscriber)| match begin {
        Some(bytes) => Some((Ok::<_, Infallible>(bytes), (None, subscriber))),
        None => subscriber.next().await.map(|bytes| (Ok(bytes), (None, subscriber))),
    });
    let mut response = Response::new(Body::from_stream(events));
    response.extensions_mut().insert(Endless);
    *response.headers_mut() = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Turns off buffering in nginx and proxies that follow it.
        (BUFFERING, HeaderValue::from_static("no")),
    ]);
    response
}

/// One stream.
struct Subscriber {
    channel: watch::Receiver<FeedState>,
    /// The last event that the client received.
    last: Option<EventId>,
    /// Whether `last` is from an earlier stream, so that it must not be repeated.
    resumed: bool,
    skips_left: u8,
    _permit: OwnedSemaphorePermit,
    _open: OpenStream,
}

/// Counts an open stream in the gauge.
struct OpenStream;

impl OpenStream {
    fn new() -> Self {
        metrics::streams().increment(1.0);
        Self
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        metrics::streams().decrement(1.0);
    }
}

impl Subscriber {
    fn new(feed: &Arc<LiveFeed>, permit: OwnedSemaphorePermit, last: Option<EventId>) -> Self {
        let mut channel = feed.channel.subscribe();
        channel.mark_changed();
        if !feed.publishing.swap(true, Ordering::SeqCst) {
            tokio::spawn(publish(Arc::clone(feed)));
        }
        Self {
            channel,
            last,
            resumed: last.is_some(),
            skips_left: MAX_SKIPPED_EVENTS,
            _permit: permit,
            _open: OpenStream::new(),
        }
    }

    /// The newest event that the client has not received; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.channel.changed().await.ok()?;
            let event = match &*self.channel.borrow_and_update() {
                FeedState::Idle => continue,
                FeedState::End => return None,
                FeedState::Event(event) => event.clone(),
            };
            if self.accepts(event.key) {
                return Some(event.bytes);
            }
        }
    }

    fn accepts(&mut self, key: EventKey) -> bool {
        let EventKey::Counts(id) = key else { return true };
        let resumed = std::mem::take(&mut self.resumed);
        if let Some(last) = &self.last {
            if id.is_behind(last) && self.skips_left > 0 {
                self.skips_left -= 1;
                self.resumed = resumed;
                return false;
            }
            if resumed && id == *last {
                return false;
            }
        }
        self.skips_left = MAX_SKIPPED_EVENTS;
        self.last = Some(id);
        true
    }
}

/// Publishes the events of a feed until it has no subscriber or the process shuts down.
async fn publish(feed: Arc<LiveFeed>) {
    let mut ticks = interval(feed.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last: Option<(EventKey, Instant)> = None;
    loop {
        tokio::select! {
            biased;
            () = feed.stop.cancelled() => {
                feed.channel.send_replace(FeedState::End);
                return;
            }
            _ = ticks.tick() => {}
        }
        if feed.channel.receiver_count() == 0 {
            // A later subscriber must not get an old event.
            feed.channel.send_replace(FeedState::Idle);
            feed.publishing.store(false, Ordering::SeqCst);
            // A subscriber that came meanwhile has either spawned its own publisher or relies on this one.
            if feed.channel.receiver_count() == 0 || feed.publishing.swap(true, Ordering::SeqCst) {
                return;
            }
            last = None;
        }
        let hour = Hour::of_ms(feed.app.clock.now_ms());
        let snapshot = tokio::select! {
            biased;
            () = feed.stop.cancelled() => continue,
            snapshot = feed.app.current_hour(hour) => snapshot,
        };
        let key = EventKey::new(hour, &snapshot.result);
        let due = last.is_none_or(|(last, at)| last != key || at.elapsed() >= feed.heartbeat);
        if due {
            last = Some((key, Instant::now()));
            metrics::live_event();
            feed.channel.send_replace(FeedState::Event(LiveEvent::new(hour, key, &snapshot.result)));
        }
    }
}
