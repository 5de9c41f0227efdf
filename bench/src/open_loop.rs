//! An open loop: requests leave when they are due, each on a free connection, independent of responses. A closed loop slows
//! down with the server and never shows the effects of overload.
//!
//! Connections are opened before: opening thousands at once would measure dropped handshakes. One thread, because the
//! server needs the other cores. Times count from when a request is due, so that a late sender shows in them.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio::sync::Notify;

use crate::http::{Connection, Tier};

/// The interval between two sends of due requests. The resolution of the runtime's timer is one millisecond.
const TICK: Duration = Duration::from_micros(200);
/// The maximum number of connections that open concurrently.
const OPENING: usize = 100;
/// The longest wait for a response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The load.
pub(crate) struct Plan {
    pub(crate) to: SocketAddr,
    /// Requests, sent in turn.
    pub(crate) requests: Vec<Vec<u8>>,
    /// Requests per second.
    pub(crate) rate: f64,
    pub(crate) lasting: Duration,
    /// Number of connections; one that the server closes is opened again.
    pub(crate) connections: usize,
    /// What happens to a request that is due while every connection is busy.
    pub(crate) late: Late,
}

/// What happens to a request that is due while every connection is busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// It is sent late; its time counts from when it was due. For latencies.
    Outcome,
    /// It is dropped. For goodput under overload.
    Dropped,
}

/// A request and its response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Exchange {
    /// When it was due, from the start.
    pub(crate) due: Duration,
    /// The time from then to its response.
    pub(crate) took: Duration,
    /// The status; 0 without a response.
    pub(crate) status: u16,
    pub(crate) tier: Tier,
}

/// The result of a load.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) answers: Vec<Exchange>,
    /// Dropped: due while every connection was busy.
    pub(crate) unsent: u64,
}

impl Outcome {
    /// The number of responses with one of these statuses.
    pub(crate) fn count(&self, status: impl Fn(u16) -> bool) -> usize {
        self.answers.iter().filter(|answered| status(answered.status)).count()
    }

    /// The time from the first request to the last response, and at least the length of the load.
    pub(crate) fn lasted(&self, planned: Duration) -> Duration {
        self.answers.iter().map(|answered| answered.due + answered.took).fold(planned, Duration::max)
    }
}

/// The state that all requests share.
struct Shared {
    plan: Plan,
    idle: RefCell<Vec<Connection>>,
    sent: RefCell<Outcome>,
}

impl Shared {
    /// Takes a connection that is free and still open.
    fn free(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        std::iter::from_fn(|| idle.pop()).find(Connection::is_reusable)
    }
}

/// Connects, reports when the first request is due, sends the load and waits for the responses. Blocking.
pub(crate) fn run(plan: Plan, begins: impl FnOnce(Instant)) -> anyhow::Result<Outcome> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let (ticks, over) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let ticking = {
        let (ticks, over) = (ticks.clone(), over.clone());
        std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                ticks.notify_one();
            }
        })
    };
    let sent = runtime.block_on(local.run_until(async {
        let idle = connect(&plan).await?;
        let begin = Instant::now();
        begins(begin);
        anyhow::Ok(pace(plan, idle, begin, &ticks).await)
    }));
    over.store(true, Ordering::Relaxed);
    ticking.join().map_err(|_| anyhow::anyhow!("the clock's thread panicked"))?;
    sent
}

async fn connect(plan: &Plan) -> anyhow::Result<Vec<Connection>> {
    let opening = futures::stream::iter((0..plan.connections).map(|_| Connection::open(plan.to)));
    let opened: Vec<_> = opening.buffer_unordered(OPENING).collect().await;
    Ok(opened.into_iter().collect::<Result<_, _>>()?)
}

async fn pace(plan: Plan, idle: Vec<Connection>, begin: Instant, ticks: &Notify) -> Outcome {
    let Plan { rate, connections, late, .. } = plan;
    let total = due_by(plan.lasting, rate);
    let shared = Rc::new(Shared { plan, idle: RefCell::new(idle), sent: RefCell::default() });
    let mut next = 0;
    while next < total {
        ticks.notified().await;
        let due_now = due_by(begin.elapsed(), rate).min(total);
        while next < due_now {
            let connection = shared.free();
            // Every task in flight owns a reference to the shared state, and a connection.
            if connection.is_some() || Rc::strong_count(&shared) <= connections {
                let due = Duration::from_secs_f64(next as f64 / rate);
                tokio::task::spawn_local(one(shared.clone(), connection, next, begin, due));
            } else if late == Late::Dropped {
                shared.sent.borrow_mut().unsent += 1;
            } else {
                break;
            }
            next += 1;
        }
    }
    let deadline = Instant::now() + TIMEOUT + Duration::from_secs(1);
    while Rc::strong_count(&shared) > 1 && Instant::now() < deadline {
        ticks.notified().await;
    }
    shared.sent.take()
}

async fn one(shared: Rc<Shared>, connection: Option<Connection>, number: u64, begin: Instant, due: Duration) {
    let exchange = exchange(&shared, connection, number);
    let (status, tier) = match tokio::time::timeout(TIMEOUT, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => (0, Tier::Unknown),
    };
    let took = begin.elapsed().saturating_sub(due);
    shared.sent.borrow_mut().answers.push(Exchange { due, took, status, tier });
}

async fn exchange(shared: &Shared, connection: Option<Connection>, number: u64) -> std::io::Result<(u16, Tier)> {
    let plan = &shared.plan;
    let mut connection = match connection {
        Some(connection) => connection,
        None => Connection::open(plan.to).await?,
    };
    let which = usize::try_from(number).unwrap_or(usize::MAX) % plan.requests.len();
    let answer = connection.exchange(&plan.requests[which]).await?;
    let answer = (answer.status, answer.tier);
    shared.idle.borrow_mut().push(connection);
    Ok(answer)
}

/// The number of requests due after a time; the first one at once.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "far below 2⁵³, and not negative")]
fn due_by(elapsed: Duration, rate: f64) -> u64 {
    (elapsed.as_secs_f64() * rate).ceil() as u64
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn follows_the_rate() {
        assert_eq!(due_by(Duration::ZERO, 1e3), 0);
        assert_eq!(due_by(Duration::from_nanos(1), 1e3), 1);
        assert_eq!(due_by(Duration::from_secs(4), 20_000.0), 80_000);
    }

    /// Responds to each connection's first request, and to no other.
    async fn responds_once() -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut request = [0; 256];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
                });
            }
        });
        to
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn counts_every_request_once() {
        let to = responds_once().await;
        let requests = vec![b"GET / HTTP/1.1\r\n\r\n".to_vec()];
        let lasting = Duration::from_millis(100);
        let plan = Plan { to, requests, rate: 1_000.0, lasting, connections: 5, late: Late::Outcome };
        let sent = tokio::task::spawn_blocking(|| run(plan, |_| {})).await.unwrap().unwrap();
        assert_eq!(sent.count(|status| status == 503), 100);
        assert_eq!((sent.answers.len(), sent.unsent), (100, 0));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn sends_late_or_drops_requests_without_a_connection() {
        // The kernel accepts, and nothing responds: every connection is busy with its first request.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let plan = |late, answers: &'static [u8]| {
            let (to, requests) = (listener.local_addr().unwrap(), vec![b"GET / HTTP/1.1\r\n\r\n".to_vec()]);
            let listener = listener.try_clone().unwrap();
            std::thread::spawn(move || {
                use std::io::{Read as _, Write as _};
                let (mut stream, _) = listener.accept().unwrap();
                let mut served = 0;
                while stream.read(&mut [0; 256]).is_ok_and(|length| length > 0) {
                    // The first response is late, so that further requests are due meanwhile.
                    std::thread::sleep(Duration::from_millis(if served == 0 { 50 } else { 0 }));
                    stream.write_all(answers).unwrap();
                    served += 1;
                }
            });
            Plan { to, requests, rate: 1_000.0, lasting: Duration::from_millis(20), connections: 1, late }
        };
        for (late, sent_at_all) in [(Late::Outcome, 20), (Late::Dropped, 1)] {
            let plan = plan(late, b"HTTP/1.1 204 X\r\n\r\n");
            let sent = tokio::task::spawn_blocking(|| run(plan, |_| {})).await.unwrap().unwrap();
            assert_eq!((sent.count(|status| status == 204), sent.unsent), (sent_at_all, 20 - sent_at_all as u64));
        }
    }
}
