//! Publishes at a rate, beside a reader of each topic who gets and acknowledges one message at a time; and whether each
//! message that was acknowledged to its publisher was received.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::reader::Reader;
use super::{Topics, subscribe};
use crate::numbers::{ms, percentile};
use crate::offer::Pace;
use crate::open_loop::{Late, run as run_open_loop};
use crate::print;

/// The number of different messages; a load repeats them.
const RENDERED: u64 = 8_192;

/// Prints `FOLLOW` with: publishes acknowledged a second, their number, those not acknowledged, the share of all that was
/// answered 2xx within a second, median and 99th percentile in ms; messages that readers acknowledged, messages lost, requests
/// of readers refused, median and 99th percentile of an acknowledgement in ms.
pub(crate) async fn run(to: SocketAddr, topics: &Topics, pace: Pace) -> anyhow::Result<()> {
    topics.create(to).await?;
    let path = |number| format!("{}/subscriptions/follower", topics.path(number));
    let subscriptions: Vec<_> = (0..topics.count()).map(path).collect();
    subscribe(to, &subscriptions, r#"{"mode":"pull"}"#, "latest").await?;
    let over = Arc::new(AtomicBool::new(false));
    let mut readers = Vec::new();
    for subscription in &subscriptions {
        let reader = Reader::open(to, subscription, "wait=1s").await?;
        readers.push(tokio::spawn(read(reader, over.clone())));
    }
    let requests = (0..RENDERED.max(topics.count())).map(|number| topics.publish(to, number)).collect();
    let lasting = pace.lasting();
    let plan = pace.plan(to, requests, Late::Outcome);
    let sent = tokio::task::spawn_blocking(|| run_open_loop(plan, |_| {})).await??;
    over.store(true, Ordering::Relaxed);
    let (mut received, mut refused, mut acks) = (0, 0, Vec::new());
    for reading in readers {
        let (acknowledged, refusals, took) = reading.await??;
        received += acknowledged;
        refused += refusals;
        acks.extend(took);
    }
    let good = sent.answers.iter().filter(|answered| answered.status == 201);
    let mut took: Vec<_> = good.map(|answered| answered.took).collect();
    let published = took.len() as u64;
    let due = sent.answers.len();
    let prompt = took.iter().filter(|took| **took < Duration::from_secs(1)).count();
    print(&format!(
        "FOLLOW {:.0} {published} {} {:.4} {} {} {received} {} {refused} {} {}",
        published as f64 / sent.lasted(lasting).as_secs_f64(),
        due - took.len(),
        prompt as f64 / due.max(1) as f64,
        ms(percentile(&mut took, 0.5)),
        ms(percentile(&mut took, 0.99)),
        published.saturating_sub(received),
        ms(percentile(&mut acks, 0.5)),
        ms(percentile(&mut acks, 0.99)),
    ))
}

/// Reads until the load is over and nothing is left. Returns the messages acknowledged, the requests refused, and the times of
/// the acknowledgements.
async fn read(mut reader: Reader, over: Arc<AtomicBool>) -> anyhow::Result<(u64, u64, Vec<Duration>)> {
    let (mut acknowledged, mut took) = (0, Vec::new());
    loop {
        // Read before the get: an empty answer to a get from after the end means that nothing is left.
        let last = over.load(Ordering::Relaxed);
        let tokens = reader.pull().await?;
        if tokens.is_empty() {
            if last {
                return Ok((acknowledged, reader.refused, took));
            }
            continue;
        }
        let began = Instant::now();
        acknowledged += reader.acknowledge(&tokens).await?;
        took.push(began.elapsed());
    }
}
