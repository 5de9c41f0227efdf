//! Closed loops of subscribers with a backlog: get, acknowledge, get.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;

use super::reader::Reader;
use super::{Topics, subscribe};
use crate::numbers::percentile;
use crate::print;

/// Number of subscribers, and how they read.
#[derive(Debug, Clone, Args)]
pub(crate) struct Shape {
    #[command(flatten)]
    topics: Topics,
    /// Number of subscribers, each with a subscription of its own
    #[arg(long)]
    subscribers: u64,
    /// Most messages of a get
    #[arg(long, default_value_t = 1)]
    max: u64,
    /// Length in seconds
    #[arg(long)]
    seconds: f64,
}

/// Reads topics that have a backlog, over and over. Prints the line `BENCH`: messages got and acknowledged a second, their
/// number, failures, median and 99th percentile of a round trip of both requests.
pub(crate) async fn run(to: SocketAddr, shape: Shape) -> anyhow::Result<()> {
    let Shape { topics, subscribers, max, seconds } = shape;
    let path = |number| format!("{}/subscriptions/reader-{number}", topics.path(number));
    let subscriptions: Vec<_> = (0..subscribers).map(path).collect();
    subscribe(to, &subscriptions, r#"{"mode":"pull","start":"earliest"}"#, "earliest").await?;
    let query = format!("max={max}");
    let mut readers = Vec::new();
    // One after the other: a listener's backlog is bounded.
    for subscription in &subscriptions {
        readers.push(Reader::open(to, subscription, &query).await?);
    }
    let began = Instant::now();
    let deadline = began + Duration::from_secs_f64(seconds);
    let loops: Vec<_> = readers.into_iter().map(|reader| tokio::spawn(read(reader, deadline))).collect();
    let (mut took, mut messages, mut refused) = (Vec::new(), 0, 0);
    for reading in loops {
        let (trips, acknowledged, refusals) = reading.await??;
        took.extend(trips);
        messages += acknowledged;
        refused += refusals;
    }
    let rate = messages as f64 / began.elapsed().as_secs_f64();
    let (p50, p99) = (percentile(&mut took, 0.5).as_micros(), percentile(&mut took, 0.99).as_micros());
    print(&format!("BENCH {rate:.0} {messages} {refused} {p50} {p99}"))
}

/// Returns the times of the round trips, the messages acknowledged, and the requests refused.
async fn read(mut reader: Reader, deadline: Instant) -> anyhow::Result<(Vec<Duration>, u64, u64)> {
    let (mut took, mut messages) = (Vec::new(), 0);
    while Instant::now() < deadline {
        let began = Instant::now();
        let tokens = reader.pull().await?;
        if tokens.is_empty() {
            reader.rewind().await?;
            continue;
        }
        messages += reader.acknowledge(&tokens).await?;
        took.push(began.elapsed());
    }
    Ok((took, messages, reader.refused))
}
