//! A backlog: topics, and messages in each, published in batches.

use std::net::SocketAddr;

use super::{Topics, send_all};
use crate::requests::with_body;

/// Messages of a batch.
const BATCH: u64 = 100;
/// Requests that are rendered at a time.
const PORTION: usize = 500;

/// Creates the topics and publishes as many messages to each.
pub(crate) async fn run(to: SocketAddr, topics: &Topics, messages: u64) -> anyhow::Result<()> {
    topics.create(to).await?;
    let batch = |topic: u64, first: u64| {
        let count = BATCH.min(messages - first);
        let items: Vec<_> =
            (first..first + count).map(|number| format!(r#"{{"body":"{}"}}"#, topics.message(number))).collect();
        let target = format!("{}/messages:batch", topics.path(topic));
        with_body("POST", to, &target, "application/json", &format!("[{}]", items.join(",")))
    };
    let firsts = (0..messages).step_by(usize::try_from(BATCH)?);
    let mut batches = firsts.flat_map(|first| (0..topics.count()).map(move |topic| (topic, first)));
    loop {
        let portion: Vec<_> = batches.by_ref().take(PORTION).map(|(topic, first)| batch(topic, first)).collect();
        if portion.is_empty() {
            return Ok(());
        }
        send_all(to, &portion).await?;
    }
}
