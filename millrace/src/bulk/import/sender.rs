//! Brings a batch to its end: sends it, reads the result of every event, sends again what is not settled.
//!
//! Every event has an id, so whatever may or may not be in the log is sent again without a doubt, for as long as the
//! processor remembers ids.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use millrace_contracts::Code;
use millrace_service::shown;
use serde::Deserialize;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Stop;
use super::batch::Batch;
use super::reject::Reject;
use crate::load::{Connection, Lost, Target, Verdict, of_item, of_request};

/// The first pause before an event is sent again; every other is twice as long and a little.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What all senders share.
#[derive(Debug)]
pub(super) struct Service {
    /// Command services; whoever finds one away tries the next.
    pub(super) targets: Vec<Target>,
    /// For one connect, one request, one answer.
    pub(super) timeout: Duration,
    /// How long a batch is offered.
    pub(super) patience: Duration,
}

/// A batch at its end.
pub(super) struct Settled {
    pub(super) batch: Batch,
    pub(super) accepted: u64,
    /// In the order of the lines, those that were never sent included.
    pub(super) rejects: Vec<Reject>,
}

/// One connection's end of the import.
pub(super) struct Sender {
    service: Arc<Service>,
    target: usize,
    connection: Option<Connection>,
    request: Vec<u8>,
}

/// The result of one event.
#[derive(Deserialize)]
struct Item {
    status: u16,
    code: Option<String>,
    field: Option<String>,
    detail: Option<String>,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
}

/// What to know before sending again.
struct Again {
    why: String,
    after: Duration,
}

impl Sender {
    /// The sender with this number.
    pub(super) fn new(service: Arc<Service>, number: usize) -> Self {
        Self { service, target: number, connection: None, request: Vec::new() }
    }

    /// Sends until every event is accepted or refused. `None` if it was told to stop before.
    pub(super) async fn settle(&mut self, mut batch: Batch, stop: &CancellationToken) -> Result<Option<Settled>, Stop> {
        let mut pending: Vec<usize> = (0..batch.len()).collect();
        // The library knows no randomness of its own without its standard features; any number that differs will do.
        let seed = batch.end.offset ^ ((self.target as u64) << 48);
        let rejects = std::mem::take(&mut batch.bad);
        let mut settled = Settled { batch, accepted: 0, rejects };
        let deadline = Instant::now() + self.service.patience;
        let pauses = ExponentialBuilder::default().with_min_delay(FIRST_PAUSE).with_max_delay(LONGEST_PAUSE);
        let mut pauses = pauses.without_max_times().with_jitter().with_jitter_seed(seed).build();
        while !pending.is_empty() {
            let again = self.attempt(&mut settled, &mut pending).await?;
            let Some(Again { why, after }) = again else { continue };
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE).max(after);
            if Instant::now() + pause > deadline {
                return Err(Stop::GaveUp(self.service.patience, why));
            }
            if stop.run_until_cancelled(sleep(pause)).await.is_none() {
                return Ok(None);
            }
        }
        settled.rejects.sort_by_key(|reject| reject.line);
        Ok(Some(settled))
    }

    /// Sends what is pending once, and keeps pending what has to be sent again.
    async fn attempt(&mut self, settled: &mut Settled, pending: &mut Vec<usize>) -> Result<Option<Again>, Stop> {
        let service = self.service.clone();
        let authority = &service.targets[self.target % service.targets.len()].authority;
        let connection = match self.connection.take() {
            Some(connection) => Ok(connection),
            None => Connection::open(authority, service.timeout).await,
        };
        let mut connection = match connection {
            Ok(connection) => connection,
            Err(e) => return Ok(Some(self.elsewhere(format!("http://{authority}: {e}")))),
        };
        render(&settled.batch, pending, authority, &mut self.request);
        let answer = match connection.exchange(&self.request, service.timeout).await {
            Ok(answer) => answer,
            Err(Lost::Unsent | Lost::Unanswered) => {
                return Ok(Some(self.elsewhere(format!("http://{authority} gave no answer"))));
            }
        };
        let after = answer.retry_after.map_or(Duration::ZERO, Duration::from_secs);
        let items: Option<Vec<Item>> = serde_json::from_slice(answer.body).ok();
        let why = if let Some(items) = items.filter(|items| items.len() == pending.len()) {
            settled.book(pending, items)
        } else {
            Some(whole(answer.status, answer.body, authority)?)
        };
        if answer.reusable {
            self.connection = Some(connection);
        }
        Ok(why.map(|why| Again { why, after }))
    }

    /// The next attempt goes to another service, if there is one.
    fn elsewhere(&mut self, why: String) -> Again {
        self.target += 1;
        Again { why, after: Duration::ZERO }
    }
}

impl Settled {
    /// Books the results of what is pending, and keeps pending what has to be sent again; says why, if anything has.
    fn book(&mut self, pending: &mut Vec<usize>, items: Vec<Item>) -> Option<String> {
        let mut unsettled = None;
        let mut items = items.into_iter();
        pending.retain(|&index| {
            let item = items.next().expect("as many as are pending");
            match of_item(item.status, item.code.as_deref()) {
                Verdict::Acknowledged => self.accepted += 1,
                Verdict::Rejected => self.rejects.push(refused(self.batch.line(index), item)),
                Verdict::Later | Verdict::Unknown => {
                    unsettled = Some(format!("{} {}", item.status, code_of(item.code.as_deref())));
                    return true;
                }
            }
            false
        });
        unsettled
    }
}

/// Why a batch has to be sent again whose answer is no list of results; or that it never has to.
fn whole(status: u16, body: &[u8], authority: &str) -> Result<String, Stop> {
    let problem: Option<Problem> = serde_json::from_slice(body).ok();
    let told = problem
        .map(|problem| format!(" ({}: {})", code_of(Some(&problem.code)), shown(&problem.detail)))
        .unwrap_or_default();
    let told = format!("http://{authority} answered {status}{told}");
    match of_request(status, body) {
        Verdict::Rejected => Err(Stop::Refused(told)),
        // Accepted, but which of them: without the list nobody knows.
        Verdict::Acknowledged | Verdict::Later | Verdict::Unknown => Ok(told),
    }
}

fn refused(line: u64, item: Item) -> Reject {
    let Item { code, field, detail, .. } = item;
    Reject {
        line,
        code: code_of(code.as_deref()),
        field: field.map(|field| shown(&field)),
        // The service repeats at most 64 characters of the input in a sentence of its own.
        detail: detail.unwrap_or_default().chars().take(256).collect(),
        sent: true,
    }
}

/// A code that is known; what another server may say is not repeated.
fn code_of(word: Option<&str>) -> &'static str {
    Code::ALL.iter().map(|code| code.as_str()).find(|known| Some(*known) == word).unwrap_or("another-code")
}

fn render(batch: &Batch, pending: &[usize], authority: &str, out: &mut Vec<u8>) {
    let length: usize = pending.iter().map(|&index| batch.event(index).len()).sum();
    let head = format!(
        "POST /analytics/batch HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/x-ndjson\r\ncontent-length: {length}\r\n\r\n"
    );
    out.clear();
    out.extend_from_slice(head.as_bytes());
    for &index in pending {
        out.extend_from_slice(batch.event(index));
    }
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
    use crate::bulk::import::records::{Form, Records};

    /// A batch of three events and a line that is none.
    async fn batch() -> Batch {
        let event = r#"{"timestamp":1,"user":"u","event":"click"}"#;
        let text = format!("{event}\n{event}\nx\n{event}\n");
        let mut lines = Lines::new(Box::new(Cursor::new(text.into_bytes())), Mark::default());
        let form = Form::read(Format::Ndjson, &mut lines).unwrap_or_else(|_| panic!("no header is read"));
        let room = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let batch = Cutter::new(Records::new(lines, form), "f".into(), 1_000).next(room);
        batch.unwrap_or_else(|_| panic!("memory is read")).unwrap()
    }

    /// Sends the batch to a server that gives these answers in turn; what was sent, and what came of it.
    async fn settle(
        answers: &'static [(&'static str, &'static str)],
        patience: Duration,
    ) -> (String, Result<Option<Settled>, Stop>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = tokio::spawn(async move {
            let mut seen = Vec::new();
            for (head, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                // Requests are small enough to come in one piece with their heads.
                let mut request = vec![0; 65_536];
                let read = stream.read(&mut request).await.unwrap();
                seen.extend_from_slice(&request[..read]);
                let answer =
                    format!("HTTP/1.1 {head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            String::from_utf8(seen).unwrap()
        });
        let service = Service { targets: vec![target], timeout: Duration::from_secs(10), patience };
        let settled = Sender::new(Arc::new(service), 0).settle(batch().await, &CancellationToken::new()).await;
        (server.await.unwrap(), settled)
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn only_what_is_not_settled_is_sent_again() {
        let (seen, settled) = settle(
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
            assert_eq!(seen.matches(id).count(), times, "{id}");
        }
    }

    #[tokio::test]
    async fn a_batch_that_is_none_for_the_service_ends_it() {
        let (_, settled) =
            settle(&[("413 Large", r#"{"code":"too-many-items","detail":"more than 2 items"}"#)], MINUTE).await;
        assert!(matches!(settled.err(), Some(Stop::Refused(why)) if why.contains("too-many-items")));
    }

    #[tokio::test]
    async fn a_service_that_asks_for_more_time_than_there_is_is_given_up() {
        let answers = &[("429 Many\r\nretry-after: 61", r#"{"code":"rate-limited","detail":"slow down"}"#)];
        let (_, settled) = settle(answers, MINUTE).await;
        assert!(matches!(settled.err(), Some(Stop::GaveUp(_, why)) if why.contains("rate-limited")));
    }
}
