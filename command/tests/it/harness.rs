//! The command service on a free port, and requests to it whose responses the OpenAPI document must have.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use millrace_base::Clock;
use millrace_base::{Size, Span};
use millrace_command::{Config, router};
use millrace_contracts::Names;
use millrace_log::{EmbeddedConfig, EmbeddedLog, Log};
use millrace_service::http::{HttpLimits, serve};
use millrace_testkit::{ApiDocument, AsyncConnection, Exchange, Response, request};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Longer than any step of a test; a test that hangs fails after it.
const PATIENCE: Duration = Duration::from_mins(1);
/// The time on the server's clock: 2026-11-21T08:00:00Z.
pub(crate) const NOW: i64 = 1_795_248_000_000;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) log: Log,
    /// The metrics of this server only.
    metrics: PrometheusHandle,
    pub(crate) stop: CancellationToken,
    pub(crate) task: tokio::task::JoinHandle<()>,
    _directory: tempfile::TempDir,
}

/// Checks that the OpenAPI document has the response.
fn check(request: &[u8], response: &Response) {
    static DOCUMENT: LazyLock<ApiDocument> = LazyLock::new(|| ApiDocument::load("command"));
    let line = String::from_utf8_lossy(request.split(|&byte| byte == b'\r').next().unwrap_or_default());
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (status, content_type, body) = (response.status, response.header("content-type"), &*response.body);
    DOCUMENT.check(&Exchange { method, target, status, content_type, body });
}

pub(crate) fn short_limits() -> HttpLimits {
    let ms = |n| Span(Duration::from_millis(n));
    HttpLimits {
        head_timeout: ms(300),
        body_timeout: ms(600),
        body_idle_timeout: ms(300),
        idle_timeout: ms(1_000),
        max_body_bytes: Size(64 << 10),
        max_inflated_bytes: Size(256 << 10),
        ..HttpLimits::default()
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Config::default()).await
    }

    pub(crate) async fn with(config: Config) -> Self {
        Self::on(config, |_| {}).await
    }

    /// With changed settings of the log.
    pub(crate) async fn on(config: Config, change: impl FnOnce(&mut EmbeddedConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut embedded = EmbeddedConfig {
            directory: directory.path().join("log"),
            partitions: 4,
            max_queue_records: 100_000,
            max_queue_bytes: Size::from_mib(64),
            max_record_bytes: Size::from_mib(1),
            cache_size: Size::from_mib(1),
            memtable_size: Size::from_mib(1),
            journal_size: Size::from_mib(64),
            min_free_disk: Size(0),
            retention_bytes: Size(0),
            max_tail_records: 1_000,
            retention_check_interval: Span::from_secs(60),
        };
        change(&mut embedded);
        let open = move || EmbeddedLog::open(embedded, Names::default());
        let log = Log::Embedded(tokio::task::spawn_blocking(open).await.unwrap().unwrap());
        log.create_topics().await.unwrap();
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        let clock = Clock::fixed(NOW);
        let routes = metrics::with_local_recorder(&recorder, || router(&config, log.clone(), &Names::default(), clock));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(serve(listener, routes, config.limits, stop.clone()));
        Self { address, log, metrics, stop, task, _directory: directory }
    }

    /// A metric's value: `name` or `name{label="value"}`.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {series} in {text}")).parse().unwrap()
    }

    /// Number of events with this outcome.
    pub(crate) fn answered(&self, code: &str) -> u64 {
        self.metric(&format!("millrace_command_events_total{{outcome=\"{code}\"}}"))
    }

    /// Waits until so many events that were answered early have this outcome.
    pub(crate) async fn early(&self, outcome: &str, events: u64) {
        self.reaches(&format!("millrace_command_async_events_total{{outcome=\"{outcome}\"}}"), events).await;
    }

    /// Waits until a metric has this value.
    pub(crate) async fn reaches(&self, series: &str, value: u64) {
        let end = std::time::Instant::now() + PATIENCE;
        while self.metric(series) != value {
            assert!(std::time::Instant::now() < end, "{series} is {}, not {value}", self.metric(series));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn connect(&self) -> AsyncConnection {
        AsyncConnection::open(self.address).await
    }

    /// Sends bytes on a connection of their own and reads the first final response.
    pub(crate) async fn send(&self, bytes: impl AsRef<[u8]>) -> Response {
        let response = self.connect().await.exchange(bytes.as_ref()).await;
        check(bytes.as_ref(), &response);
        response
    }

    pub(crate) async fn post(&self, query: &str) -> Response {
        self.send(request("POST", &format!("/analytics?{query}"), &[], "")).await
    }

    /// One event with a body.
    pub(crate) async fn post_body(&self, query: &str, media: &str, body: impl AsRef<[u8]>) -> Response {
        self.send(request("POST", &format!("/analytics?{query}"), &[("Content-Type", media)], body)).await
    }

    pub(crate) async fn batch(&self, media: &str, body: impl AsRef<[u8]>) -> Response {
        self.send(batch_request(&format!("Content-Type: {media}\r\n"), body)).await
    }
}

pub(crate) fn batch_request(headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let headers: Vec<_> = headers.lines().filter_map(|line| line.split_once(": ")).collect();
    request("POST", "/analytics/batch", &headers, body)
}
