//! A bare client of an endpoint: the library that push uses, as in its documentation, and a signature for each request.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use super::endpoint::listen;
use crate::clock::now_ms;
use crate::numbers::bench_line;
use crate::print;
use crate::topics::Topics;

/// The load.
#[derive(Debug, Clone, Args)]
pub(crate) struct Shape {
    #[command(flatten)]
    topics: Topics,
    /// Number of connections, each with a request at a time
    #[arg(long)]
    connections: u64,
    /// Length in seconds
    #[arg(long)]
    seconds: f64,
}

/// Posts the bodies that Millrace delivers, with its headers, to an endpoint of this process. Prints the line `BENCH`.
pub(crate) async fn run(shape: Shape) -> anyhow::Result<()> {
    let (endpoint, _arrivals) = listen(([127, 0, 0, 1], 0).into()).await?;
    // Without a proxy from the environment, as push.
    let client = reqwest::Client::builder().no_proxy().build()?;
    let deadline = Instant::now() + Duration::from_secs_f64(shape.seconds);
    let connections: Vec<_> = (0..shape.connections)
        .map(|first| tokio::spawn(post(client.clone(), endpoint, shape.clone(), first, deadline)))
        .collect();
    let mut took = Vec::new();
    for connection in connections {
        took.extend(connection.await??);
    }
    print(&bench_line(&mut took, 0, Duration::from_secs_f64(shape.seconds)))
}

/// Posts one message after the other; returns the times.
async fn post(
    client: reqwest::Client,
    endpoint: SocketAddr,
    shape: Shape,
    first: u64,
    deadline: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[7; 32]);
    let url = format!("http://{endpoint}/hook");
    let (mut number, mut took) = (first, Vec::new());
    while Instant::now() < deadline {
        let began = Instant::now();
        let (id, timestamp) = (format!("{number:032x}"), (now_ms() / 1_000).to_string());
        let body = shape.topics.message(number);
        let signature = hmac::sign(&key, format!("{id}.{timestamp}.{body}").as_bytes());
        let request = client
            .post(&url)
            .header("content-type", "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", format!("v1,{}", STANDARD.encode(signature)))
            .header("webhook-attempt", "1")
            .header("millrace-topic", "bench-0")
            .header("millrace-subscription", "hook")
            .header("user-agent", "Millrace/bench")
            .body(body);
        let status = request.send().await?.status();
        ensure!(status.is_success(), "the endpoint answered {status}");
        took.push(began.elapsed());
        number += shape.connections;
    }
    Ok(took)
}
