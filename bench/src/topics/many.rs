//! Very many topics with a subscription each: created as fast as they can be, then published to and read at random.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use clap::Args;

use super::reader::{ack, tokens};
use super::{PAUSE, TIMEOUT, Topics, verb};
use crate::clock::now_ms;
use crate::http::Connection;
use crate::numbers::{bench_line, percentile};
use crate::preload::Random;
use crate::print;
use crate::requests::with_body;

/// The longest wait for the first answer of a server that was started again.
const RESTART: Duration = Duration::from_mins(5);

/// The topics, and how many requests are under way.
#[derive(Debug, Clone, Args)]
pub(crate) struct Shape {
    #[command(flatten)]
    topics: Topics,
    /// Number of connections, each with one request at a time
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..))]
    connections: u64,
}

impl Shape {
    async fn open(&self, to: SocketAddr) -> anyhow::Result<Vec<Connection>> {
        let mut connections = Vec::new();
        // One after the other: a listener's backlog is bounded.
        for _ in 0..self.connections.min(self.topics.count()) {
            connections.push(Connection::open(to).await?);
        }
        Ok(connections)
    }
}

fn subscription(topics: &Topics, number: u64) -> String {
    format!("{}/subscriptions/own", topics.path(number))
}

/// Creates the topics with a subscription each. Prints the line `CREATED`: topics with their subscription a second, their number,
/// median and 99th percentile of a request in µs.
pub(crate) async fn create(to: SocketAddr, shape: Shape) -> anyhow::Result<()> {
    let connections = shape.open(to).await?;
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let loops: Vec<_> = connections
        .into_iter()
        .map(|connection| tokio::spawn(create_some(connection, to, shape.topics.clone(), next.clone())))
        .collect();
    let mut took = Vec::new();
    for creating in loops {
        took.extend(creating.await??);
    }
    let rate = shape.topics.count() as f64 / began.elapsed().as_secs_f64();
    let (p50, p99) = (percentile(&mut took, 0.5).as_micros(), percentile(&mut took, 0.99).as_micros());
    print(&format!("CREATED {rate:.0} {} {p50} {p99}", shape.topics.count()))
}

async fn create_some(
    mut connection: Connection,
    to: SocketAddr,
    topics: Topics,
    next: Arc<AtomicU64>,
) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= topics.count() {
            return Ok(took);
        }
        for (path, body) in [(topics.path(number), "{}"), (subscription(&topics, number), r#"{"mode":"pull"}"#)] {
            let request = with_body("PUT", to, &path, "application/json", body);
            took.push(put(&mut connection, &request, &path).await?);
        }
    }
}

/// Creates one; what is refused with 503 is sent again.
async fn put(connection: &mut Connection, request: &[u8], path: &str) -> anyhow::Result<Duration> {
    let began = Instant::now();
    loop {
        let answer = connection.exchange(request).await?;
        match answer.status {
            200 | 201 => return Ok(began.elapsed()),
            429 | 503 if began.elapsed() < TIMEOUT => tokio::time::sleep(PAUSE).await,
            status => bail!("PUT {path} returned {status}: {}", String::from_utf8_lossy(answer.body)),
        }
    }
}

/// Publishes to a topic drawn at random and gets the message, over and over. Prints the line `BENCH` with the times of both
/// requests together; the acknowledgement that follows is not measured.
pub(crate) async fn trips(to: SocketAddr, shape: Shape, seconds: f64) -> anyhow::Result<()> {
    let connections = shape.open(to).await?;
    let parts = connections.len() as u64;
    let deadline = Instant::now() + Duration::from_secs_f64(seconds);
    let loops: Vec<_> = (0..parts)
        .zip(connections)
        .map(|(part, connection)| {
            let topics = shape.topics.clone();
            tokio::spawn(trips_of(connection, to, topics, (part, parts), deadline))
        })
        .collect();
    let (mut took, mut failed) = (Vec::new(), 0);
    for running in loops {
        let (trips, refused) = running.await??;
        took.extend(trips);
        failed += refused;
    }
    print(&bench_line(&mut took, failed, Duration::from_secs_f64(seconds)))
}

/// Trips to a part of the topics, so that no two connections meet. Returns their times, and how many requests were refused.
async fn trips_of(
    mut connection: Connection,
    to: SocketAddr,
    topics: Topics,
    (part, parts): (u64, u64),
    deadline: Instant,
) -> anyhow::Result<(Vec<Duration>, usize)> {
    let (mut took, mut refused) = (Vec::new(), 0);
    let mut random = Random::new();
    while Instant::now() < deadline {
        let number = random.below(topics.count() / parts) * parts + part;
        let path = subscription(&topics, number);
        let publish = topics.publish(to, number);
        let pull = format!("GET {path}/messages?max=1 HTTP/1.1\r\nhost: {to}\r\n\r\n").into_bytes();
        let began = Instant::now();
        let published = connection.exchange(&publish).await?.status;
        if matches!(published, 429 | 503) {
            refused += 1;
            continue;
        }
        ensure!(published == 201, "a publish returned {published}");
        let answer = connection.exchange(&pull).await?;
        ensure!(answer.status == 200, "a get behind a publish returned {}", answer.status);
        took.push(began.elapsed());
        let tokens = tokens(&answer);
        let acknowledged = connection.exchange(&ack(to, &verb(&path, "ack"), &tokens)).await?.status;
        ensure!(acknowledged == 200, "an acknowledgement returned {acknowledged}");
    }
    Ok((took, refused))
}

/// Waits until a get of a topic drawn at random is answered, however long the server takes to come back.
pub(crate) async fn first(to: SocketAddr, topics: &Topics) -> anyhow::Result<()> {
    let path = subscription(topics, now_ms() % topics.count());
    let pull = format!("GET {path}/messages?max=1 HTTP/1.1\r\nhost: {to}\r\n\r\n").into_bytes();
    let began = Instant::now();
    loop {
        let status = match Connection::open(to).await {
            Ok(mut connection) => connection.exchange(&pull).await.map(|answer| answer.status),
            Err(error) => Err(error),
        };
        match status {
            Ok(200 | 204) => return Ok(()),
            Ok(503) | Err(_) if began.elapsed() < RESTART => tokio::time::sleep(PAUSE).await,
            Ok(status) => bail!("a get returned {status}"),
            Err(error) => return Err(error.into()),
        }
    }
}
