//! `GET /analytics/live`: the current hour as server-sent events, as it changes.
//!
//! One task reads and writes for all who listen, and only while somebody does: [`pump`] looks at the current hour, makes
//! one event of what changed, and puts it where every stream finds the newest. A stream that is slow misses what came in
//! between, never more: each event says all there is to say.
//!
//! An event's id is the numbers themselves, so a stream that breaks is taken up by any instance: what the client has seen
//! is not sent again, nor anything older.

use std::convert::Infallible;
use std::fmt;
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
use millrace_service::{Problem, spread_retry};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::current::Outcome;
use crate::http::App;
use crate::page::Page;
use crate::{Config, Missed, accept, metrics};

static AVAILABLE: [MediaType<'static>; 1] = [MediaType::new(TEXT, EVENT_STREAM)];
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
pub(crate) const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// How soon a client takes up a stream that broke, at the least, and the room over which those that broke together spread.
const RETRY_MS: u16 = 1_000;
const SPREAD_MS: u16 = 4_000;

/// How many events an instance that lags behind the client's last one is waited for.
const PATIENCE: u8 = 20;

/// What every stream of the process shares.
pub(crate) struct Live {
    newest: watch::Sender<Newest>,
    pumping: AtomicBool,
    seats: Arc<Semaphore>,
    stop: CancellationToken,
    every: Duration,
    heartbeat: Duration,
}

#[derive(Clone)]
enum Newest {
    /// Nothing yet, or nobody listened.
    Nothing,
    Event(Event),
    /// The process is ending.
    End,
}

/// An event as it goes out.
#[derive(Clone)]
struct Event {
    says: Says,
    bytes: Bytes,
}

/// What an event tells, in which it differs from the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Says {
    Numbers(Id),
    Missed(Missed),
}

/// The numbers of an hour: the id of the event that tells them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    hour: i64,
    unique_users: u64,
    clicks: u64,
    impressions: u64,
    stale: bool,
}

impl Id {
    fn of(hour: Hour, page: &Page) -> Self {
        let totals = &page.known.totals;
        let (unique_users, clicks, impressions) = (totals.unique_users, totals.clicks, totals.impressions);
        Self { hour: hour.index(), unique_users, clicks, impressions, stale: page.known.stale }
    }

    /// Anything that is not an id of ours is none: the stream then begins anew.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut number = || u64::from_str_radix(parts.next()?, 16).ok();
        let (hour, unique_users, clicks, impressions) = (number()?, number()?, number()?, number()?);
        let stale = match parts.next() {
            None => false,
            Some("stale") => true,
            Some(_) => return None,
        };
        let hour = i64::try_from(hour).ok()?;
        parts.next().is_none().then_some(Self { hour, unique_users, clicks, impressions, stale })
    }

    fn is_behind(&self, other: &Self) -> bool {
        let less = self.clicks < other.clicks || self.impressions < other.impressions;
        self.hour < other.hour || (self.hour == other.hour && less)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hour, unique_users, clicks, impressions, stale } = self;
        let stale = if *stale { "-stale" } else { "" };
        write!(f, "{hour:x}-{unique_users:x}-{clicks:x}-{impressions:x}{stale}")
    }
}

pub(crate) async fn live(State(app): State<Arc<App>>, request: Request) -> Response {
    if accept::chosen(request.headers(), &AVAILABLE).is_none() {
        return Problem::new(Code::NotAcceptable, "served is text/event-stream").field("accept").into_response();
    }
    let Ok(seat) = Arc::clone(&app.live.seats).try_acquire_owned() else {
        metrics::unanswered(Code::Overloaded);
        return Problem::new(Code::Overloaded, "too many live streams are open")
            .retry_after(spread_retry(Duration::from_secs(5)))
            .into_response();
    };
    let last = request.headers().get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).and_then(Id::parse);
    let reader = Reader::new(&app, seat, last);
    let chance = u16::from_be_bytes([Uuid::new_v4().as_bytes()[0], Uuid::new_v4().as_bytes()[1]]) % SPREAD_MS;
    let begin = Bytes::from(format!("retry: {}\n\n", RETRY_MS + chance));
    let events = stream::unfold((Some(begin), reader), async |(begin, mut reader)| match begin {
        Some(bytes) => Some((Ok::<_, Infallible>(bytes), (None, reader))),
        None => reader.next().await.map(|bytes| (Ok(bytes), (None, reader))),
    });
    let mut response = Response::new(Body::from_stream(events));
    *response.headers_mut() = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Asks proxies not to collect what is to go on at once.
        (BUFFERING, HeaderValue::from_static("no")),
    ]);
    response
}

/// One stream.
struct Reader {
    newest: watch::Receiver<Newest>,
    /// What the client has seen last.
    last: Option<Id>,
    /// Whether that is from a stream that broke, and not to be sent again.
    resumed: bool,
    patience: u8,
    _seat: OwnedSemaphorePermit,
    _open: Open,
}

/// Counts the open streams.
struct Open;

impl Open {
    fn new() -> Self {
        metrics::streams().increment(1.0);
        Self
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        metrics::streams().decrement(1.0);
    }
}

impl Reader {
    fn new(app: &Arc<App>, seat: OwnedSemaphorePermit, last: Option<Id>) -> Self {
        let mut newest = app.live.newest.subscribe();
        newest.mark_changed();
        if !app.live.pumping.swap(true, Ordering::SeqCst) {
            tokio::spawn(pump(Arc::clone(app)));
        }
        Self { newest, last, resumed: last.is_some(), patience: PATIENCE, _seat: seat, _open: Open::new() }
    }

    /// The newest event that the client has not seen; `None` when the stream is over.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.newest.changed().await.ok()?;
            let event = match &*self.newest.borrow_and_update() {
                Newest::Nothing => continue,
                Newest::End => return None,
                Newest::Event(event) => event.clone(),
            };
            if self.wants(event.says) {
                return Some(event.bytes);
            }
        }
    }

    fn wants(&mut self, says: Says) -> bool {
        let Says::Numbers(id) = says else { return true };
        let resumed = std::mem::take(&mut self.resumed);
        if let Some(last) = &self.last {
            if id.is_behind(last) && self.patience > 0 {
                self.patience -= 1;
                self.resumed = resumed;
                return false;
            }
            if resumed && id == *last {
                return false;
            }
        }
        self.patience = PATIENCE;
        self.last = Some(id);
        true
    }
}

/// Makes the events, until nobody listens any more or the process ends.
async fn pump(app: Arc<App>) {
    let live = &app.live;
    let mut ticks = interval(live.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before: Option<(Says, Instant)> = None;
    loop {
        tokio::select! {
            biased;
            () = live.stop.cancelled() => {
                live.newest.send_replace(Newest::End);
                return;
            }
            _ = ticks.tick() => {}
        }
        if live.newest.receiver_count() == 0 {
            // What was last said is not for those who come much later.
            live.newest.send_replace(Newest::Nothing);
            live.pumping.store(false, Ordering::SeqCst);
            // One that came meanwhile has either begun a pump of its own or finds this one.
            if live.newest.receiver_count() == 0 || live.pumping.swap(true, Ordering::SeqCst) {
                return;
            }
            before = None;
        }
        let hour = Hour::of_ms((app.clock)());
        let checked = tokio::select! {
            biased;
            () = live.stop.cancelled() => continue,
            checked = app.check(hour) => checked,
        };
        let says = match &checked.outcome {
            Outcome::Known(page) => Says::Numbers(Id::of(hour, page)),
            Outcome::Missed(missed) => Says::Missed(*missed),
        };
        let due = before.is_none_or(|(last, at)| last != says || at.elapsed() >= live.heartbeat);
        if due {
            before = Some((says, Instant::now()));
            metrics::event();
            live.newest.send_replace(Newest::Event(Event { says, bytes: encode(hour, &checked.outcome) }));
        }
    }
}

fn encode(hour: Hour, outcome: &Outcome) -> Bytes {
    let text = match outcome {
        Outcome::Known(page) => {
            // What an hour's JSON says, with the hour before it.
            let members = std::str::from_utf8(&page.json()[1..]).expect("JSON is UTF-8 and begins with a brace");
            let (id, timestamp) = (Id::of(hour, page), hour.start_ms());
            format!("event: hour\nid: {id}\ndata: {{\"hour\":\"{hour}\",\"timestamp\":{timestamp},{members}\n\n")
        }
        Outcome::Missed(missed) => format!("event: unavailable\ndata: {{\"code\":\"{}\"}}\n\n", missed.code().0),
    };
    text.into()
}

impl Live {
    /// Streams end when `stop` is cancelled.
    pub(crate) fn new(config: &Config, stop: CancellationToken) -> Self {
        Self {
            newest: watch::Sender::new(Newest::Nothing),
            pumping: AtomicBool::new(false),
            seats: Arc::new(Semaphore::new(config.max_live_streams.min(Semaphore::MAX_PERMITS))),
            stop,
            every: config.live_interval.0,
            heartbeat: config.live_heartbeat.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_round_trip() {
        let id = Id { hour: 498_680, unique_users: 7, clicks: u64::MAX, impressions: 0, stale: false };
        for id in [id, Id { stale: true, ..id }] {
            assert_eq!(Id::parse(&id.to_string()), Some(id));
        }
        for bad in ["", "1", "1-2-3", "1-2-3-4-x", "1-2-3-4-stale-", "g-2-3-4", "-1-2-3-4", "1-2-3-4-5"] {
            assert_eq!(Id::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_id_of_less_is_behind() {
        let id = Id { hour: 5, unique_users: 7, clicks: 7, impressions: 7, stale: false };
        for (other, behind) in [
            (id, false),
            (Id { clicks: 8, ..id }, true),
            (Id { impressions: 8, clicks: 6, ..id }, true),
            (Id { unique_users: 8, ..id }, false),
            (Id { hour: 6, clicks: 0, ..id }, true),
            (Id { hour: 4, clicks: 9, ..id }, false),
        ] {
            assert_eq!(id.is_behind(&other), behind, "{other:?}");
        }
    }
}
