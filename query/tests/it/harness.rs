//! The query service on a free port over a clock and read models that the test controls, and requests to it whose
//! responses the OpenAPI document must have.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use axum::Router;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_base::Span;
use millrace_contracts::{Exactness, Hour, Names};
use millrace_query::{Config, Hours, Known, Missed, Tier};
use millrace_service::health::Health;
use millrace_service::http::HttpLimits;
use millrace_store::Totals;
use millrace_testkit::{ApiDocument, AsyncConnection, Exchange, Response};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// 2026-11-21T08:30:00Z, the middle of an hour.
pub(crate) const NOW_MS: i64 = 1_795_249_800_000;
pub(crate) const HOUR_MS: i64 = 3_600_000;
pub(crate) const REFRESH_MS: i64 = 50;
pub(crate) const STALE_AFTER_MS: i64 = 1_000;

pub(crate) fn config() -> Config {
    Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        admin: SocketAddr::from(([127, 0, 0, 1], 0)),
        refresh_interval: Span(Duration::from_millis(REFRESH_MS.unsigned_abs())),
        stale_after: Span(Duration::from_millis(STALE_AFTER_MS.unsigned_abs())),
        store_timeout: Span(Duration::from_secs(2)),
        breaker_window: 8,
        breaker_reset_timeout: Span(Duration::from_millis(10)),
        max_archive_reads: 16,
        archive_cache_ttl: Span(Duration::from_millis(1)),
        refill_interval: Span(Duration::from_secs(10)),
        max_refill_rate: 100,
        max_range_hours: 744,
        max_live_streams: 1_000,
        live_interval: Span(Duration::from_millis(1)),
        live_heartbeat: Span(Duration::from_hours(1)),
        watch: Vec::new(),
        limits: HttpLimits::default(),
    }
}

pub(crate) fn totals(unique_users: u64, clicks: u64, impressions: u64) -> Totals {
    Totals { clicks, impressions, unique_users, exactness: Exactness::Exact }
}

/// What the read models say to every read from now on.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Said {
    Known(Totals, Tier),
    Rebuilding,
    Away,
    Overloaded,
}

/// Read models that say what they are told, and can be held so that reads wait.
pub(crate) struct Stores {
    said: Mutex<Said>,
    open: watch::Sender<bool>,
    reads: AtomicUsize,
    bulk: AtomicUsize,
    now_ms: Arc<AtomicI64>,
}

impl Stores {
    pub(crate) fn say(&self, said: Said) {
        *self.said.lock().unwrap() = said;
    }

    pub(crate) fn hold(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn release(&self) {
        self.open.send_replace(true);
    }

    pub(crate) fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    /// Reads of many hours at once.
    pub(crate) fn bulk_reads(&self) -> usize {
        self.bulk.load(Ordering::SeqCst)
    }

    fn answer(&self) -> Result<Known, Missed> {
        match *self.said.lock().unwrap() {
            Said::Known(totals, tier) => {
                Ok(Known { totals, tier, as_of_ms: self.now_ms.load(Ordering::SeqCst), stale: false })
            }
            Said::Rebuilding => Err(Missed::Rebuilding),
            Said::Away => Err(Missed::Unavailable),
            Said::Overloaded => Err(Missed::Overloaded),
        }
    }
}

impl Hours for Stores {
    fn read(&self, _hour: Hour, _current: Hour) -> BoxFuture<'_, Result<Known, Missed>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let mut open = self.open.subscribe();
        async move {
            open.wait_for(|open| *open).await.unwrap();
            self.answer()
        }
        .boxed()
    }

    fn bulk(&self, from: Hour, to: Hour, _current: Hour) -> BoxFuture<'_, Result<Vec<Known>, Missed>> {
        self.bulk.fetch_add(1, Ordering::SeqCst);
        let mut open = self.open.subscribe();
        async move {
            open.wait_for(|open| *open).await.unwrap();
            let known = self.answer()?;
            // Hours before the epoch's day 1,000 are empty.
            let totals = |index: i64| if index < 24_000 { Totals::default() } else { known.totals };
            Ok((from.index()..to.index()).map(|index| Known { totals: totals(index), ..known }).collect())
        }
        .boxed()
    }

    fn first_live(&self, current: Hour) -> Hour {
        current.plus(-24)
    }
}

/// The service's clock, standing still until it is moved.
pub(crate) struct Hands(Arc<AtomicI64>);

impl Hands {
    pub(crate) fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

pub(crate) struct Server {
    pub(crate) stores: Arc<Stores>,
    pub(crate) clock: Hands,
    pub(crate) router: Router,
    client: Client,
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    served: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(config()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        let now_ms = Arc::new(AtomicI64::new(NOW_MS));
        let stores = Arc::new(Stores {
            said: Mutex::new(Said::Away),
            open: watch::Sender::new(true),
            reads: AtomicUsize::new(0),
            bulk: AtomicUsize::new(0),
            now_ms: Arc::clone(&now_ms),
        });
        let hands = Hands(Arc::clone(&now_ms));
        let clock = Arc::new(move || now_ms.load(Ordering::SeqCst));
        let hours = Arc::clone(&stores);
        let stop = CancellationToken::new();
        let router = millrace_query::router(&config, hours, &Names::default(), &Health::new(), clock, stop.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(millrace_service::http::serve(listener, router.clone(), config.limits, stop.clone()));
        Self { stores, clock: hands, router, client: Client(address), address, stop, served }
    }

    /// Tells the service to end, and waits until it has.
    pub(crate) async fn end(mut self) {
        self.stop.cancel();
        (&mut self.served).await.unwrap();
    }

    pub(crate) async fn get(&self, target: &str, headers: &[(&str, &str)]) -> Response {
        self.client.send("GET", target, headers).await
    }

    pub(crate) async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
        self.client.send(method, target, headers).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Every response of a test, whatever it requests, is one that the OpenAPI document has.
static DOCUMENT: LazyLock<ApiDocument> = LazyLock::new(|| ApiDocument::load("query"));

/// Sends each request on a connection of its own.
pub(crate) struct Client(pub(crate) SocketAddr);

impl Client {
    pub(crate) async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Response {
        let headers = [&[("connection", "close")], headers].concat();
        let request = millrace_testkit::request(method, target, &headers, "");
        let response = AsyncConnection::open(self.0).await.exchange(request).await;
        let encoded = response.header("content-encoding").is_some();
        let (content_type, body) = (response.header("content-type").filter(|_| !encoded), &*response.body);
        DOCUMENT.check(&Exchange { method, target, status: response.status, content_type, body });
        response
    }
}

/// All headers but those that differ from one response to the next.
pub(crate) fn sorted_headers(response: &Response) -> Vec<&(String, String)> {
    let mut headers: Vec<_> =
        response.headers.iter().filter(|(name, _)| !matches!(&**name, "date" | "x-request-id")).collect();
    headers.sort();
    headers
}
