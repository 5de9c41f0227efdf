//! From publish to endpoint, at a rate.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::endpoint::listen;
use super::{settings, subscriptions};
use crate::numbers::{ms, percentile};
use crate::offer::Pace;
use crate::open_loop::{Late, run as run_open_loop};
use crate::print;
use crate::topics::{Topics, act, subscribe};

/// The longest wait for the last delivery.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The interval between two looks at the endpoint.
const LOOK: Duration = Duration::from_millis(5);

/// Publishes at a rate to topics with a push subscription each. Prints `DELIVERED` with: publishes acknowledged a second, their
/// number, those not acknowledged, messages that did not arrive, deliveries beyond one of each; median and 99th percentile in
/// ms from when a publish was due to its first arrival.
pub(crate) async fn run(to: SocketAddr, topics: &Topics, endpoint: SocketAddr, pace: Pace) -> anyhow::Result<()> {
    let (endpoint, arrivals) = listen(endpoint).await?;
    topics.create(to).await?;
    let subscriptions = subscriptions(topics);
    subscribe(to, &subscriptions, &settings(endpoint, "latest"), "latest").await?;
    act(to, &subscriptions, "resume", "").await?;
    // Each message has its number, so that its arrival leads to the time when it was due.
    let requests = (0..pace.count()).map(|number| topics.publish(to, number)).collect();
    let lasting = pace.lasting();
    let plan = pace.plan(to, requests, Late::Outcome);
    let (start, started) = tokio::sync::oneshot::channel();
    let sending = tokio::task::spawn_blocking(move || {
        run_open_loop(plan, |begin| {
            // The receiver is dropped only if the measurement has failed.
            let _ = start.send(begin);
        })
    });
    let begin = started.await.context("the load did not start")?;
    let sent = sending.await??;
    let published = sent.count(|status| status == 201);
    let waiting = Instant::now();
    while arrivals.count() < published && waiting.elapsed() < TIMEOUT {
        tokio::time::sleep(LOOK).await;
    }
    act(to, &subscriptions, "suspend", "").await?;
    let came = arrivals.take();
    let mut first: BTreeMap<u64, Instant> = BTreeMap::new();
    for (number, at) in &came {
        first.entry(*number).or_insert(*at);
    }
    let since_due = |(number, at): (&u64, &Instant)| at.saturating_duration_since(begin + pace.due(*number));
    let mut took: Vec<_> = first.iter().map(since_due).collect();
    // Message by message: one whose publish got no answer may arrive, and does not stand in for one that is lost.
    let arrived: HashSet<Duration> = first.keys().map(|&number| pace.due(number)).collect();
    let good = sent.answers.iter().filter(|answered| answered.status == 201);
    let lost = good.filter(|answered| !arrived.contains(&answered.due)).count();
    print(&format!(
        "DELIVERED {:.0} {published} {} {lost} {} {} {}",
        published as f64 / sent.lasted(lasting).as_secs_f64(),
        sent.answers.len() - published,
        came.len() - first.len(),
        ms(percentile(&mut took, 0.5)),
        ms(percentile(&mut took, 0.99)),
    ))
}
