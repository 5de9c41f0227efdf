//! The query service on a free port over a clock and read models that the test controls, and requests to it whose
//! responses the OpenAPI document must have.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use axum::Router;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use millrace_base::{Clock, Size, Span};
use millrace_contracts::{Exactness, Hour, Names};
use millrace_query::{Config, Coverage, HourCounts, HourReader, MinPositions, ReadError, Tier};
use millrace_service::health::Health;
use millrace_service::http::{HttpLimits, OtherSide};
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
        proxy_protocol: false,
        admin: SocketAddr::from(([127, 0, 0, 1], 0)),
        command_url: OtherSide::default(),
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
        max_encoder_memory: Size::from_mib(128),
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

/// What every read of the fake read models returns.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StoreState {
    Counts(Totals, Tier),
    Rebuilding,
    Unavailable,
    Overloaded,
}

/// Fake read models. Reads wait while they are held.
pub(crate) struct Stores {
    state: Mutex<StoreState>,
    /// Whether reads have the events that requests require.
    reached: Mutex<bool>,
    counted_up_to: Mutex<Option<i64>>,
    notice: Mutex<Option<String>>,
    /// The longest wait of the last read that required events.
    waited: Mutex<Option<Duration>>,
    open: watch::Sender<bool>,
    reads: AtomicUsize,
    range_reads: AtomicUsize,
    now_ms: Arc<AtomicI64>,
}

impl Stores {
    pub(crate) fn set(&self, state: StoreState) {
        *self.state.lock().unwrap() = state;
    }

    pub(crate) fn reach(&self, reached: bool) {
        *self.reached.lock().unwrap() = reached;
    }

    pub(crate) fn count_up_to(&self, up_to_ms: Option<i64>) {
        *self.counted_up_to.lock().unwrap() = up_to_ms;
    }

    pub(crate) fn show(&self, notice: Option<&str>) {
        *self.notice.lock().unwrap() = notice.map(Into::into);
    }

    pub(crate) fn waited(&self) -> Option<Duration> {
        self.waited.lock().unwrap().take()
    }

    fn require(&self, positions: &MinPositions, wait: Duration) -> Result<(), ReadError> {
        assert!(!positions.is_empty());
        *self.waited.lock().unwrap() = Some(wait);
        if *self.reached.lock().unwrap() { Ok(()) } else { Err(ReadError::NotYetVisible) }
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

    /// Reads of a range of hours.
    pub(crate) fn range_reads(&self) -> usize {
        self.range_reads.load(Ordering::SeqCst)
    }

    fn answer(&self) -> Result<HourCounts, ReadError> {
        match *self.state.lock().unwrap() {
            StoreState::Counts(totals, tier) => {
                let (as_of_ms, stale) = (self.now_ms.load(Ordering::SeqCst), false);
                let coverage = Coverage { up_to_ms: *self.counted_up_to.lock().unwrap(), log_end: None };
                Ok(HourCounts { totals, tier, as_of_ms, stale, coverage })
            }
            StoreState::Rebuilding => Err(ReadError::Rebuilding),
            StoreState::Unavailable => Err(ReadError::Unavailable),
            StoreState::Overloaded => Err(ReadError::Overloaded),
        }
    }
}

impl HourReader for Stores {
    fn read(&self, _hour: Hour, _current: Hour) -> BoxFuture<'_, Result<HourCounts, ReadError>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let mut open = self.open.subscribe();
        async move {
            open.wait_for(|open| *open).await.unwrap();
            self.answer()
        }
        .boxed()
    }

    fn read_range(&self, from: Hour, to: Hour, _current: Hour) -> BoxFuture<'_, Result<Vec<HourCounts>, ReadError>> {
        self.range_reads.fetch_add(1, Ordering::SeqCst);
        let mut open = self.open.subscribe();
        async move {
            open.wait_for(|open| *open).await.unwrap();
            let counts = self.answer()?;
            // Hours before index 24,000 have no events.
            let totals = |index: i64| if index < 24_000 { Totals::default() } else { counts.totals };
            Ok((from.index()..to.index()).map(|index| HourCounts { totals: totals(index), ..counts }).collect())
        }
        .boxed()
    }

    fn read_at<'a>(
        &'a self,
        hour: Hour,
        current: Hour,
        positions: &'a MinPositions,
        wait: Duration,
    ) -> BoxFuture<'a, Result<HourCounts, ReadError>> {
        async move {
            self.require(positions, wait)?;
            self.read(hour, current).await
        }
        .boxed()
    }

    fn range_at<'a>(&'a self, positions: &'a MinPositions, wait: Duration) -> BoxFuture<'a, Result<(), ReadError>> {
        std::future::ready(self.require(positions, wait)).boxed()
    }

    fn partitions(&self) -> u32 {
        4
    }

    fn counted_up_to(&self) -> Option<i64> {
        *self.counted_up_to.lock().unwrap()
    }

    fn notice(&self) -> Option<String> {
        self.notice.lock().unwrap().clone()
    }

    fn first_live(&self, current: Hour) -> Hour {
        current.plus(-24)
    }
}

/// The service's clock, which only tests advance.
pub(crate) struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    pub(crate) fn advance(&self, ms: i64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }
}

pub(crate) struct Server {
    pub(crate) stores: Arc<Stores>,
    pub(crate) clock: ManualClock,
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
            state: Mutex::new(StoreState::Unavailable),
            reached: Mutex::new(true),
            counted_up_to: Mutex::default(),
            notice: Mutex::default(),
            waited: Mutex::default(),
            open: watch::Sender::new(true),
            reads: AtomicUsize::new(0),
            range_reads: AtomicUsize::new(0),
            now_ms: Arc::clone(&now_ms),
        });
        let clock_handle = ManualClock(Arc::clone(&now_ms));
        let clock = Clock::new(move || now_ms.load(Ordering::SeqCst));
        let hours = Arc::clone(&stores);
        let stop = CancellationToken::new();
        let router = millrace_query::router(&config, hours, &Names::default(), &Health::new(), clock, stop.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(millrace_service::http::serve(listener, router.clone(), config.limits, stop.clone()));
        Self { stores, clock: clock_handle, router, client: Client(address), address, stop, served }
    }

    /// Shuts down the service and waits for that.
    pub(crate) async fn shut_down(mut self) {
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
