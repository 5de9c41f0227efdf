//! Sends a batch until every event has a final outcome: reads the result of each, and resends those without one.
//!
//! Every event has an id, so that a resend never counts twice while the processor retains ids.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http_body_util::Full;
use millrace_base::Backoff;
use millrace_service::shown;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Stop;
use super::batch::Batch;
use super::reject::Reject;
use crate::client::verdict::{self, Item};
use crate::client::{Connection, ExchangeError, Request, Response, Target, Verdict};

/// Pauses before a resend.
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// The command services, and how long to wait for them.
#[derive(Debug)]
pub(super) struct Service {
    /// Command services; after a failed exchange a sender continues with the next.
    pub(super) targets: Vec<Target>,
    /// Timeout of a connect and of an exchange.
    pub(super) timeout: Duration,
    /// How long a batch is retried.
    pub(super) patience: Duration,
}

/// A batch whose every event has a final outcome.
pub(super) struct Settlement {
    pub(super) batch: Batch,
    pub(super) accepted: u64,
    /// In the order of the lines, including lines that were never sent.
    pub(super) rejects: Vec<Reject>,
}

/// The sender of one connection.
pub(super) struct Sender {
    service: Arc<Service>,
    target: usize,
    connection: Option<Connection>,
}

/// Why another attempt is necessary, and the earliest time for it.
struct Retry {
    why: String,
    after: Duration,
}

impl Sender {
    /// The sender with this number.
    pub(super) fn new(service: Arc<Service>, number: usize) -> Self {
        Self { service, target: number, connection: None }
    }

    /// Sends until the service accepts or refuses every event. `None` if canceled before.
    pub(super) async fn settle(
        &mut self,
        mut batch: Batch,
        stop: &CancellationToken,
    ) -> Result<Option<Settlement>, Stop> {
        let mut pending: Vec<usize> = (0..batch.len()).collect();
        let rejects = std::mem::take(&mut batch.bad);
        let mut settlement = Settlement { batch, accepted: 0, rejects };
        let deadline = Instant::now() + self.service.patience;
        let mut backoff = Backoff::new(MIN_PAUSE, MAX_PAUSE);
        while !pending.is_empty() {
            let retry = self.attempt(&mut settlement, &mut pending).await?;
            let Some(Retry { why, after }) = retry else { continue };
            let pause = backoff.next_pause().max(after);
            if Instant::now() + pause > deadline {
                return Err(Stop::GaveUp(self.service.patience, why));
            }
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return Ok(None);
            }
        }
        settlement.rejects.sort_by_key(|reject| reject.line);
        Ok(Some(settlement))
    }

    /// Sends the pending events once; events to resend stay pending.
    async fn attempt(&mut self, settlement: &mut Settlement, pending: &mut Vec<usize>) -> Result<Option<Retry>, Stop> {
        let target = self.service.targets[self.target % self.service.targets.len()].clone();
        let response = match self.exchange(&target, request(&settlement.batch, pending)).await {
            Ok(response) => response,
            Err(why) => {
                // The next attempt goes to another service, if there are several.
                self.target += 1;
                return Ok(Some(Retry { why: format!("{target}: {why}"), after: Duration::ZERO }));
            }
        };
        let after = response.retry_after.unwrap_or_default();
        let why = match verdict::items(&response.body, pending.len()) {
            Some(items) => settlement.record(pending, items),
            None => Some(without_items(&response, &target)?),
        };
        Ok(why.map(|why| Retry { why, after }))
    }

    async fn exchange(&mut self, target: &Target, request: Request) -> Result<Response, String> {
        let timeout = self.service.timeout;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => target.open(timeout).await.map_err(|e| e.to_string())?,
        };
        let response = connection.exchange(request, timeout).await.map_err(|e: ExchangeError| e.to_string())?;
        self.connection = Some(connection).filter(Connection::is_reusable);
        Ok(response)
    }
}

impl Settlement {
    /// Records the results of the pending events; events to resend stay pending. Returns the reason of one, if any.
    fn record(&mut self, pending: &mut Vec<usize>, items: Vec<Item>) -> Option<String> {
        let mut reason = None;
        let mut items = items.into_iter();
        pending.retain(|&index| {
            let item = items.next().expect("one item for each pending event");
            match item.verdict() {
                Verdict::Acknowledged => self.accepted += 1,
                Verdict::Rejected => self.rejects.push(refused(self.batch.line(index), item)),
                Verdict::Retriable | Verdict::Unknown => {
                    reason = Some(format!("{} {}", item.status, code_of(item.code.as_deref())));
                    return true;
                }
            }
            false
        });
        reason
    }
}

/// The reason to resend a batch whose response has no list of results; an error if every resend would fail, too.
fn without_items(response: &Response, target: &Target) -> Result<String, Stop> {
    let why = format!("{target}: status {}", response.summary());
    match verdict::of_request(response.status, &response.body) {
        Verdict::Rejected => Err(Stop::Refused(why)),
        // Without the list, the outcome of each event is unknown even if the batch was accepted.
        Verdict::Acknowledged | Verdict::Retriable | Verdict::Unknown => Ok(why),
    }
}

fn refused(line: u64, item: Item) -> Reject {
    let Item { code, field, detail, .. } = item;
    Reject {
        line,
        code: code_of(code.as_deref()),
        field: field.map(|field| shown(&field)),
        // The service repeats at most 64 characters of the input in its detail.
        detail: detail.unwrap_or_default().chars().take(256).collect(),
        sent: true,
    }
}

/// The word of a code of the API; any other word is not repeated.
fn code_of(word: Option<&str>) -> &'static str {
    word.and_then(verdict::parse).map_or("unknown-code", millrace_contracts::Code::as_str)
}

fn request(batch: &Batch, pending: &[usize]) -> Request {
    let length = pending.iter().map(|&index| batch.event(index).len()).sum();
    let mut body = Vec::with_capacity(length);
    for &index in pending {
        body.extend_from_slice(batch.event(index));
    }
    let mut request = Request::new(Full::new(Bytes::from(body)));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = http::Uri::from_static("/analytics/batch");
    request.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/x-ndjson"));
    request
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::bulk::import::Format;
    use crate::bulk::import::batch::Cutter;
    use crate::bulk::import::lines::{Lines, Mark};
    use crate::bulk::import::records::{Parser, Records};

    /// A batch of three events and an invalid line.
    async fn batch() -> Batch {
        let event = r#"{"timestamp":1,"user":"u","event":"click"}"#;
        let text = format!("{event}\n{event}\nx\n{event}\n");
        let mut lines = Lines::new(Box::new(Cursor::new(text.into_bytes())), Mark::default());
        let parser = Parser::read(Format::Ndjson, &mut lines).unwrap_or_else(|_| panic!("NDJSON has no header"));
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let batch = Cutter::new(Records::new(lines, parser), "f".into(), 1_000).next(permit);
        batch.unwrap_or_else(|_| panic!("reading memory does not fail")).unwrap()
    }

    /// Sends the batch to a server with these responses; returns the requests and the result.
    async fn settle(
        responses: &'static [(&'static str, &'static str)],
        patience: Duration,
    ) -> (String, Result<Option<Settlement>, Stop>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = tokio::spawn(async move {
            let mut requests = Vec::new();
            for (head, body) in responses {
                let (mut stream, _) = listener.accept().await.unwrap();
                // The last event ends the request.
                let begin = requests.len();
                while requests[begin..].iter().rev().take(2).ne(b"\n}") {
                    let read = stream.read_buf(&mut requests).await.unwrap();
                    assert!(read > 0, "the request is incomplete");
                }
                let response =
                    format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(response.as_bytes()).await.unwrap();
            }
            String::from_utf8(requests).unwrap()
        });
        let service = Service { targets: vec![target], timeout: Duration::from_secs(10), patience };
        let settled = Sender::new(Arc::new(service), 0).settle(batch().await, &CancellationToken::new()).await;
        (server.await.unwrap(), settled)
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn resends_only_events_without_a_final_outcome() {
        let (requests, settled) = settle(
            &[
                ("503 Busy", r#"{"code":"overloaded","detail":"full"}"#),
                (
                    "207 Some",
                    r#"[{"status":204,"code":"accepted"},{"status":503,"code":"outcome-unknown"},{"status":422,"code":"outside-window","field":"timestamp","detail":"d"}]"#,
                ),
                ("200 OK", r#"[{"status":202,"code":"accepted"}]"#),
            ],
            MINUTE,
        )
        .await;
        let settled = settled.unwrap().unwrap();
        assert_eq!(settled.accepted, 2);
        let named: Vec<_> = settled.rejects.iter().map(|reject| (reject.line, reject.code, reject.sent)).collect();
        assert_eq!(named, [(3, "malformed-body", false), (4, "outside-window", true)]);
        for (id, times) in [("\"f-1\"", 2), ("\"f-2\"", 3), ("\"f-3\"", 0), ("\"f-4\"", 2)] {
            assert_eq!(requests.matches(id).count(), times, "{id}");
        }
    }

    #[tokio::test]
    async fn stops_when_the_service_refuses_a_whole_batch() {
        let (_, settled) =
            settle(&[("413 Large", r#"{"code":"too-many-items","detail":"more than 2 items"}"#)], MINUTE).await;
        assert!(matches!(settled.err(), Some(Stop::Refused(why)) if why.contains("too-many-items")));
    }

    #[tokio::test]
    async fn gives_up_when_retry_after_exceeds_the_patience() {
        let responses = &[("429 Many\r\nretry-after: 61", r#"{"code":"rate-limited","detail":"slow down"}"#)];
        let (_, settled) = settle(responses, MINUTE).await;
        assert!(matches!(settled.err(), Some(Stop::GaveUp(_, why)) if why.contains("rate-limited")));
    }
}
