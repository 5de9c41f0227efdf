//! Topics under load: which topics, the requests for them, and a reader of a subscription.

pub(crate) mod acks;
pub(crate) mod backlog;
pub(crate) mod follow;
pub(crate) mod many;
mod reader;
pub(crate) mod trips;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::Args;
use futures::future::try_join_all;

use crate::http::Connection;
use crate::requests::with_body;

/// Connections of a preparation.
const PREPARING: usize = 32;
/// The longest wait for a coordinator.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The pause before a refused request is sent again.
const PAUSE: Duration = Duration::from_millis(10);

/// The topics of a load and their messages.
#[derive(Debug, Clone, Args)]
pub(crate) struct Topics {
    /// The topics are `{prefix}-0`, `{prefix}-1` and so on
    #[arg(long, default_value = "bench")]
    prefix: String,
    /// Number of topics
    #[arg(long = "topics", value_name = "TOPICS", default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
    /// Bytes of a message
    #[arg(long, default_value_t = 1_024)]
    bytes: usize,
}

impl Topics {
    /// The number of topics.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The path of a topic; beyond the last one it begins with the first again.
    pub(crate) fn path(&self, number: u64) -> String {
        format!("/v1/topics/{}-{}", self.prefix, number % self.count)
    }

    /// The n-th message: its number, so that whoever gets it can tell which one it is, and then padding.
    pub(crate) fn message(&self, number: u64) -> String {
        format!("{number:010} {}", "x".repeat(self.bytes.saturating_sub(11)))
    }

    /// The request that publishes the n-th message.
    pub(crate) fn publish(&self, to: SocketAddr, number: u64) -> Vec<u8> {
        with_body("POST", to, &format!("{}/messages", self.path(number)), "text/plain", &self.message(number))
    }

    /// Creates the topics.
    pub(crate) async fn create(&self, to: SocketAddr) -> anyhow::Result<()> {
        let one = |number| with_body("PUT", to, &self.path(number), "application/json", "{}");
        let requests: Vec<_> = (0..self.count).map(one).collect();
        send_all(to, &requests).await
    }
}

/// The path of a subscription's verb.
pub(crate) fn verb(subscription: &str, verb: &str) -> String {
    format!("{subscription}:{verb}")
}

/// Creates subscriptions, by their paths, with these settings; moves all of them to the position `to_position`.
pub(crate) async fn subscribe(
    to: SocketAddr,
    subscriptions: &[String],
    settings: &str,
    to_position: &str,
) -> anyhow::Result<()> {
    let put = |path: &String| with_body("PUT", to, path, "application/json", settings);
    let requests: Vec<_> = subscriptions.iter().map(put).collect();
    send_all(to, &requests).await?;
    act(to, subscriptions, "seek", &format!(r#"{{"to":"{to_position}"}}"#)).await
}

/// The same act on each subscription.
pub(crate) async fn act(to: SocketAddr, subscriptions: &[String], name: &str, body: &str) -> anyhow::Result<()> {
    let post = |path: &String| with_body("POST", to, &verb(path, name), "application/json", body);
    let requests: Vec<_> = subscriptions.iter().map(post).collect();
    send_all(to, &requests).await
}

/// Sends requests over some connections, in no order; fails unless each succeeds as a whole. Repeats what is refused with 503.
pub(crate) async fn send_all(to: SocketAddr, requests: &[Vec<u8>]) -> anyhow::Result<()> {
    let connection = async |first: usize| {
        let mut connection = Connection::open(to).await?;
        for request in requests.iter().skip(first).step_by(PREPARING) {
            let deadline = Instant::now() + TIMEOUT;
            loop {
                let answer = connection.exchange(request).await?;
                if matches!(answer.status, 200 | 201) {
                    break;
                }
                let line = request.split(|&byte| byte == b'\r').next().unwrap_or_default();
                let (line, body) = (String::from_utf8_lossy(line), String::from_utf8_lossy(answer.body));
                ensure!(answer.status == 503 && Instant::now() < deadline, "{line} returned {}: {body}", answer.status);
                tokio::time::sleep(PAUSE).await;
            }
        }
        anyhow::Ok(())
    };
    try_join_all((0..PREPARING.min(requests.len())).map(connection)).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lead_to_topics_and_stand_in_messages() {
        let topics = Topics { prefix: "t".into(), count: 3, bytes: 16 };
        assert_eq!(topics.path(7), "/v1/topics/t-1");
        assert_eq!(topics.message(7), "0000000007 xxxxx");
        let request = String::from_utf8(topics.publish("127.0.0.1:1".parse().unwrap(), 7)).unwrap();
        assert!(request.starts_with("POST /v1/topics/t-1/messages HTTP/1.1\r\n"), "{request}");
        assert!(request.ends_with("content-length: 16\r\n\r\n0000000007 xxxxx"), "{request}");
    }
}
