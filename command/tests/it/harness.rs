//! A write side on a free port, and a client that sends exactly the bytes it is told to.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use millrace_command::{Config, router};
use millrace_contracts::Names;
use millrace_log::{EmbeddedConfig, EmbeddedLog, Log};
use millrace_service::config::{Size, Span};
use millrace_service::http::{HttpLimits, serve};
use millrace_testkit::{Documented, Exchange};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Longer than anything here takes; what hangs fails by it.
const PATIENCE: Duration = Duration::from_mins(1);
/// The time on the server's clock: 2026-11-21T08:00:00Z.
pub(crate) const NOW: i64 = 1_795_248_000_000;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) log: Log,
    /// The metrics of this server alone.
    metrics: PrometheusHandle,
    pub(crate) stop: CancellationToken,
    pub(crate) task: tokio::task::JoinHandle<std::io::Result<()>>,
    _directory: tempfile::TempDir,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// Whatever a test asks for, the answer is one that the OpenAPI document has.
    fn check(&self, request: &[u8]) {
        static DOCUMENT: LazyLock<Documented> = LazyLock::new(|| Documented::of("command"));
        let line = String::from_utf8_lossy(request.split(|&byte| byte == b'\r').next().unwrap_or_default());
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (status, content_type, body) = (self.status, self.header("content-type"), &*self.body);
        DOCUMENT.check(&Exchange { method, target, status, content_type, body });
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

pub(crate) fn short_limits() -> HttpLimits {
    let ms = |n| Span(Duration::from_millis(n));
    HttpLimits {
        head_timeout: ms(300),
        body_timeout: ms(600),
        body_idle_timeout: ms(300),
        idle_timeout: ms(1_000),
        body_bytes: Size(64 << 10),
        inflated_bytes: Size(256 << 10),
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

    /// With a log of other settings.
    pub(crate) async fn on(config: Config, change: impl FnOnce(&mut EmbeddedConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut embedded = EmbeddedConfig {
            directory: directory.path().join("log"),
            partitions: 4,
            queue_records: 100_000,
            queue_kib: 64 << 10,
            max_record_bytes: 1 << 20,
            cache_kib: 1_024,
            memtable_kib: 1_024,
            journal_mib: 64,
            reserve_mib: 0,
            retention_mib: 0,
            tail_records: 1_000,
            retention_interval_ms: 60_000,
        };
        change(&mut embedded);
        let open = move || EmbeddedLog::open(embedded, Names::default());
        let log = Log::Embedded(tokio::task::spawn_blocking(open).await.unwrap().unwrap());
        log.create_topics().await.unwrap();
        let recorder = PrometheusBuilder::new().build_recorder();
        let metrics = recorder.handle();
        let clock = std::sync::Arc::new(|| NOW);
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

    /// Events answered in this way.
    pub(crate) fn answered(&self, code: &str) -> u64 {
        self.metric(&format!("millrace_command_events_total{{outcome=\"{code}\"}}"))
    }

    /// Waits until of the events that were answered early so many had this outcome.
    pub(crate) async fn early(&self, outcome: &str, events: u64) {
        let series = format!("millrace_command_answered_early_total{{outcome=\"{outcome}\"}}");
        let end = std::time::Instant::now() + PATIENCE;
        while self.metric(&series) != events {
            assert!(std::time::Instant::now() < end, "{series} is {}, not {events}", self.metric(&series));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes on a connection of their own and reads the first final answer.
    pub(crate) async fn send(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut stream = self.connect().await;
        // A server may answer and close before it has taken everything.
        let _ = stream.write_all(bytes.as_ref()).await;
        let answer = read_answer(&mut stream, &mut Vec::new()).await;
        answer.check(bytes.as_ref());
        answer
    }

    pub(crate) async fn post(&self, query: &str) -> Answer {
        self.send(format!("POST /analytics?{query} HTTP/1.1\r\nHost: x\r\n\r\n")).await
    }

    pub(crate) async fn batch(&self, media: &str, body: impl AsRef<[u8]>) -> Answer {
        self.send(batch_request(&format!("Content-Type: {media}\r\n"), body)).await
    }
}

pub(crate) fn batch_request(headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let length = body.as_ref().len();
    let head = format!("POST /analytics/batch HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {length}\r\n\r\n");
    [head.as_bytes(), body.as_ref()].concat()
}

/// Reads one answer; what came after it stays in `rest`.
pub(crate) async fn read_answer(stream: &mut TcpStream, rest: &mut Vec<u8>) -> Answer {
    tokio::time::timeout(PATIENCE, async {
        loop {
            if let Some(answer) = take_answer(rest) {
                if answer.status != 100 {
                    return answer;
                }
                continue;
            }
            let read = stream.read_buf(rest).await.unwrap();
            assert!(read > 0, "closed after {:?}", String::from_utf8_lossy(rest));
        }
    })
    .await
    .expect("an answer in time")
}

fn take_answer(bytes: &mut Vec<u8>) -> Option<Answer> {
    let end = bytes.windows(4).position(|at| at == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head[9..12].parse().unwrap();
    let mut answer = Answer { status, head, body: Vec::new() };
    let length = answer.header("content-length").map_or(0, |length| length.parse::<usize>().unwrap());
    if bytes.len() < end + length {
        return None;
    }
    answer.body = bytes[end..end + length].to_vec();
    bytes.drain(..end + length);
    Some(answer)
}

/// Whether the server closes the connection, by end or reset, and sends nothing more.
pub(crate) async fn closes(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("a close in time");
    end.is_err() || rest.is_empty()
}
