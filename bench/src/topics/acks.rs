//! Acknowledgements at a rate, independent of the answers.

use std::net::SocketAddr;

use anyhow::ensure;

use super::reader::{Reader, ack};
use super::{Topics, subscribe, verb};
use crate::numbers::bench_line;
use crate::offer::Pace;
use crate::open_loop::{Late, run as run_open_loop};
use crate::print;

/// Most messages of a get.
const PAGE: u64 = 1_000;

/// Gets enough messages from topics that have a backlog, then acknowledges each by a request of its own. Prints the line
/// `BENCH` with the times of the acknowledgements.
pub(crate) async fn run(to: SocketAddr, topics: &Topics, pace: Pace) -> anyhow::Result<()> {
    let count = pace.count();
    let query = format!("max={PAGE}");
    let mut pages = Vec::new();
    let mut found = 0;
    while found < count {
        let number = pages.len() as u64;
        let subscription = format!("{}/subscriptions/acks-{number}", topics.path(number));
        let settings = r#"{"mode":"pull","start":"earliest"}"#;
        subscribe(to, std::slice::from_ref(&subscription), settings, "earliest").await?;
        let tokens = Reader::open(to, &subscription, &query).await?.pull().await?;
        ensure!(!tokens.is_empty(), "{subscription} has no messages");
        found += tokens.len() as u64;
        let target = verb(&subscription, "ack");
        pages.push(tokens.into_iter().map(move |token| ack(to, &target, &[token])));
    }
    // One of each subscription in turn, as many readers would send them.
    let mut requests = Vec::new();
    while (requests.len() as u64) < count {
        requests.extend(pages.iter_mut().filter_map(Iterator::next));
    }
    let lasting = pace.lasting();
    let plan = pace.plan(to, requests, Late::Outcome);
    let sent = tokio::task::spawn_blocking(|| run_open_loop(plan, |_| {})).await??;
    let good = sent.answers.iter().filter(|answered| answered.status == 200);
    let mut took: Vec<_> = good.map(|answered| answered.took).collect();
    let failed = sent.answers.len() - took.len();
    print(&bench_line(&mut took, failed, sent.lasted(lasting)))
}
