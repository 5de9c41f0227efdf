//! Deliveries of a backlog, as many as Millrace can.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;

use super::endpoint::{Arrivals, listen};
use super::{settings, subscriptions};
use crate::print;
use crate::topics::{Topics, act, subscribe};

/// The longest wait for the first delivery.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The interval between two looks at the endpoint.
const LOOK: Duration = Duration::from_millis(5);
/// Without a delivery for so long after subscriptions were suspended, none is in flight.
const QUIET: Duration = Duration::from_millis(500);

/// The endpoint and the backlog.
#[derive(Debug, Clone, Args)]
pub(crate) struct Shape {
    #[command(flatten)]
    topics: Topics,
    /// Messages in each topic
    #[arg(long)]
    messages: u64,
    /// Address of the endpoint, the same in each run
    #[arg(long)]
    endpoint: SocketAddr,
    /// Length in seconds, from the first delivery; it ends earlier with the backlog
    #[arg(long)]
    seconds: f64,
}

/// Delivers the backlog to one endpoint by a subscription of each topic, from the beginning. Prints `CONNECTIONS` with the most
/// that were open at a time, and the line `BENCH`: deliveries a second, deliveries including those after the end, failures,
/// and zeros for the times, which an endpoint does not see.
pub(crate) async fn run(to: SocketAddr, shape: Shape) -> anyhow::Result<()> {
    let (endpoint, arrivals) = listen(shape.endpoint).await?;
    let subscriptions = subscriptions(&shape.topics);
    subscribe(to, &subscriptions, &settings(endpoint, "earliest"), "earliest").await?;
    act(to, &subscriptions, "resume", "").await?;
    let waiting = Instant::now();
    while arrivals.count() == 0 {
        ensure!(waiting.elapsed() < TIMEOUT, "nothing was delivered");
        tokio::time::sleep(LOOK).await;
    }
    let total = usize::try_from(shape.messages * shape.topics.count())?;
    let began = Instant::now();
    let lasting = Duration::from_secs_f64(shape.seconds);
    while began.elapsed() < lasting && arrivals.count() < total {
        tokio::time::sleep(LOOK).await;
    }
    let rate = arrivals.count() as f64 / began.elapsed().as_secs_f64();
    act(to, &subscriptions, "suspend", "").await?;
    quiet(&arrivals).await;
    print(&format!("CONNECTIONS {}", arrivals.most_open()))?;
    print(&format!("BENCH {rate:.0} {} 0 0 0", arrivals.count()))
}

/// Waits until nothing is in flight, so that no attempt fails when the endpoint ends.
async fn quiet(arrivals: &Arrivals) {
    let mut before = usize::MAX;
    while before != arrivals.count() {
        before = arrivals.count();
        tokio::time::sleep(QUIET).await;
    }
}
