//! Follows a subscription: prints each page of messages, then acknowledges it.

use std::io::Write as _;
use std::time::Duration;

use http::Method;
use millrace_contracts::topics::Delivery;
use serde_json::json;

use super::message::of_answer;
use super::{Call, Failure, Path, Service};

/// The longest long poll that the service allows.
const WAIT: Duration = Duration::from_secs(30);

/// A reader of a subscription.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) service: Service,
    pub(crate) path: Path,
    /// For how long other readers do not see what it has.
    pub(crate) lease: Option<Duration>,
    /// Most messages to print.
    pub(crate) max: Option<u64>,
    /// Most messages of a request.
    pub(crate) batch: u64,
    /// Whether to end when there are no more.
    pub(crate) drain: bool,
    /// Whether to print JSON.
    pub(crate) json: bool,
}

impl Consumer {
    /// Prints and acknowledges until the end, if there is one.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut left = self.max;
        while left != Some(0) {
            let most = left.map_or(self.batch, |left| left.min(self.batch));
            let answer = self.service.call(&self.pull(most)).await?;
            let messages = of_answer(&answer, most)?;
            if messages.is_empty() && self.drain {
                return Ok(());
            }
            let printed = self.print(&messages);
            self.acknowledge(&messages[..printed]).await?;
            if printed < messages.len() {
                return Ok(());
            }
            left = left.map(|left| left.saturating_sub(printed as u64));
        }
        Ok(())
    }

    fn pull(&self, max: u64) -> Call {
        let wait = if self.drain { Duration::ZERO } else { WAIT };
        let lease = self.lease.map_or_else(String::new, |lease| format!("&lease={}ms", lease.as_millis()));
        let target = self.path.with(&format!("/messages?max={max}&wait={}s{lease}", wait.as_secs()));
        Call { wait, temporary: Some("suspended"), ..Call::new(Method::GET, target) }
    }

    /// Returns how many were printed: fewer if the reader of the output is gone (`| head`).
    fn print(&self, messages: &[Delivery]) -> usize {
        let mut out = std::io::stdout().lock();
        let mut line = Vec::new();
        for (printed, message) in messages.iter().enumerate() {
            line.clear();
            if self.json {
                message.write_line(None, &mut line);
            } else {
                line.extend_from_slice(&message.body);
            }
            let written = out.write_all(&line).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush());
            if written.is_err() {
                return printed;
            }
        }
        messages.len()
    }

    async fn acknowledge(&mut self, messages: &[Delivery]) -> anyhow::Result<()> {
        if messages.is_empty() {
            return Ok(());
        }
        let tokens: Vec<&str> = messages.iter().map(|message| &*message.token).collect();
        let call = Call::new(Method::POST, self.path.with(":ack")).json(&json!({ "tokens": tokens }));
        match self.service.call(&call).await {
            Err(Failure::Refused { code: Some(code), .. }) if code == "stale-token" => {
                eprintln!(
                    "millrace: the subscription's position was set meanwhile: what was printed last may come again"
                );
                Ok(())
            }
            answered => Ok(answered.map(drop)?),
        }
    }
}
