//! Very many push subscriptions to a hundred endpoints, a tenth of which are dead: what they cost, and what an endpoint that gets
//! slow and dies costs the others.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use tokio::net::TcpListener;

use super::endpoint::{Arrivals, listen};
use crate::http::Connection;
use crate::numbers::{ms, percentile};
use crate::print;
use crate::process::Process;
use crate::requests::with_body;
use crate::topics::{Topics, send_all};

/// Endpoints, and subscriptions of each topic: one to each.
const ENDPOINTS: u64 = 100;
/// Every tenth endpoint refuses connections.
const DEAD: u64 = 10;
/// The answers of the slow one take longer than push calls slow, and less than its timeout.
const SLOW_MS: u64 = 3_000;
/// Requests that are rendered at a time.
const PORTION: usize = 10_000;
/// The longest wait for deliveries, from the last one on.
const QUIET: Duration = Duration::from_secs(10);
/// The interval between two looks at the endpoints.
const LOOK: Duration = Duration::from_millis(20);

/// How many subscriptions, and how long each measurement takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Shape {
    #[command(flatten)]
    topics: Topics,
    /// Publishes a second while deliveries are timed; each goes to a hundred endpoints
    #[arg(long, default_value_t = 10)]
    rate: u32,
    /// Length of each measurement in seconds
    #[arg(long)]
    seconds: u64,
    /// The process of Millrace
    #[arg(long)]
    process: u32,
}

/// The endpoints: the first one gets slow.
struct Endpoints {
    addresses: Vec<SocketAddr>,
    living: Vec<Arc<Arrivals>>,
}

impl Endpoints {
    async fn listen() -> anyhow::Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let (mut addresses, mut living) = (Vec::new(), Vec::new());
        for number in 0..ENDPOINTS {
            if number % DEAD == DEAD - 1 {
                // Its port is free again, and nobody takes it.
                addresses.push(TcpListener::bind(any).await?.local_addr()?);
            } else {
                let (address, arrivals) = listen(any).await?;
                addresses.push(address);
                living.push(arrivals);
            }
        }
        Ok(Self { addresses, living })
    }

    fn others(&self) -> &[Arc<Arrivals>] {
        self.living.get(1..).unwrap_or_default()
    }
}

/// Waits until as many requests came to these endpoints, or none came for a while; how many came.
async fn arrived(endpoints: &[Arc<Arrivals>], expected: usize) -> usize {
    let count = || endpoints.iter().map(|arrivals| arrivals.count()).sum::<usize>();
    let (mut before, mut since) = (count(), Instant::now());
    while before < expected && since.elapsed() < QUIET {
        tokio::time::sleep(LOOK).await;
        if count() > before {
            (before, since) = (count(), Instant::now());
        }
    }
    before
}

/// Creates the subscriptions, has a message delivered by each, and measures the process at rest; then publishes at a rate, while
/// one endpoint is as the others, slow, and dead. Prints
/// - `HOOKS`: subscriptions, created a second, resident KiB before and after, deliveries a second, deliveries that are missing;
/// - `REST`: CPU in % of a core, sockets, resident KiB, while nothing is published and messages to the dead ones are retried;
/// - `OTHERS`: 99th percentile in ms from when a publish was due to its arrivals at the other endpoints, before, while one is slow,
///   and while it is dead; and the arrivals that are missing.
pub(crate) async fn run(to: SocketAddr, shape: Shape) -> anyhow::Result<()> {
    let Shape { topics, rate, seconds, process } = shape;
    let process = Process::new(process);
    let endpoints = Endpoints::listen().await?;
    let empty_kib = process.resident_kib()?;
    topics.create(to).await?;
    let began = Instant::now();
    subscribe(to, &topics, &endpoints.addresses).await?;
    let count = topics.count() * ENDPOINTS;
    let created = count as f64 / began.elapsed().as_secs_f64();
    let created_kib = process.resident_kib()?;

    let began = Instant::now();
    let publishes: Vec<_> = (0..topics.count()).map(|number| topics.publish(to, number)).collect();
    send_all(to, &publishes).await?;
    let expected = publishes.len() * endpoints.living.len();
    let came = arrived(&endpoints.living, expected).await;
    let delivered = came as f64 / began.elapsed().as_secs_f64();
    let missing = expected.saturating_sub(came);
    print(&format!("HOOKS {count} {created:.0} {empty_kib} {created_kib} {delivered:.0} {missing}"))?;

    // What was in flight ends, and idle connections close.
    tokio::time::sleep(Duration::from_secs(35)).await;
    let before = process.cpu()?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let busy = process.cpu()?.saturating_sub(before).as_secs_f64() * 100.0 / seconds as f64;
    print(&format!("REST {busy:.2} {} {}", process.sockets()?, process.resident_kib()?))?;

    let number = topics.count();
    let mut timed = Timed { to, topics, rate, seconds, number, missing: 0 };
    let healthy = timed.p99(&endpoints).await?;
    endpoints.living[0].slow_down(SLOW_MS);
    let slow = timed.p99(&endpoints).await?;
    endpoints.living[0].die();
    let dead = timed.p99(&endpoints).await?;
    print(&format!("OTHERS {} {} {} {}", ms(healthy), ms(slow), ms(dead), timed.missing))
}

async fn subscribe(to: SocketAddr, topics: &Topics, endpoints: &[SocketAddr]) -> anyhow::Result<()> {
    let one = |topic: u64, number: usize, endpoint: &SocketAddr| {
        let path = format!("{}/subscriptions/hook-{number}", topics.path(topic));
        with_body("PUT", to, &path, "application/json", &super::settings(*endpoint, "latest"))
    };
    let all = (0..topics.count())
        .flat_map(|topic| endpoints.iter().enumerate().map(move |(number, endpoint)| (topic, number, endpoint)));
    let mut all = all.map(|(topic, number, endpoint)| one(topic, number, endpoint));
    loop {
        let portion: Vec<_> = all.by_ref().take(PORTION).collect();
        if portion.is_empty() {
            return Ok(());
        }
        send_all(to, &portion).await?;
    }
}

/// Publishes at a rate whose arrivals are timed.
struct Timed {
    to: SocketAddr,
    topics: Topics,
    rate: u32,
    seconds: u64,
    /// Of the next message: it tells the messages apart.
    number: u64,
    missing: usize,
}

impl Timed {
    /// The 99th percentile of the arrivals at all endpoints but the first.
    async fn p99(&mut self, endpoints: &Endpoints) -> anyhow::Result<Duration> {
        // What came before is none of it.
        endpoints.living.iter().for_each(|arrivals| drop(arrivals.take()));
        let mut connection = Connection::open(self.to).await?;
        let (first, began) = (self.number, Instant::now());
        let interval = Duration::from_secs(1) / self.rate;
        let publishes = u64::from(self.rate) * self.seconds;
        let due = |number: u64| began + interval * u32::try_from(number).unwrap_or(u32::MAX);
        for number in 0..publishes {
            tokio::time::sleep_until(due(number).into()).await;
            let status = connection.exchange(&self.topics.publish(self.to, first + number)).await?.status;
            ensure!(status == 201, "a publish returned {status}");
        }
        self.number += publishes;
        let expected = usize::try_from(publishes)? * endpoints.others().len();
        self.missing += expected.saturating_sub(arrived(endpoints.others(), expected).await);
        let mut took = Vec::new();
        for (number, at) in endpoints.others().iter().flat_map(|arrivals| arrivals.take()) {
            // A late one of a measurement before is none of this.
            if let Some(number) = number.checked_sub(first) {
                took.push(at.saturating_duration_since(due(number)));
            }
        }
        Ok(percentile(&mut took, 0.99))
    }
}
