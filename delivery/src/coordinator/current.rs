//! The current message, as the earlier system's calls have it: handed out without a token, and acknowledged without one.

use millrace_contracts::topics::{AckToken, Change, Delivery, Name, Pull, Reply};
use millrace_contracts::{Code, Refusal};

use super::fold::Outcome;
use super::serve::On;
use super::shard::CurrentMessage;
use super::takeover::not_in_force;
use super::{pull, rights};

/// Bytes of a message's frame in the earlier system, beside the topic's name and the content.
const FRAME_BYTES: usize = 13;

impl On<'_> {
    /// Hands out the oldest message that is not acknowledged, and remembers it. A coordinator that takes over remembers
    /// none, so an acknowledgement settles only what was handed out before it.
    pub(super) async fn current_message(&self, name: &Name) -> Result<Reply, Refusal> {
        let wanted = Pull { subscription: name.clone(), max: 1, wait_ms: 0, lease_ms: None };
        let messages = pull::pull(self.shared, self.shard, self.topic, self.principal, &wanted).await?;
        let Some(message) = messages.first() else { return Ok(Reply::Messages(messages)) };
        // The coordinator made the token a moment ago.
        let token = AckToken::parse(&message.token).map_err(|_| not_in_force())?;
        let current = CurrentMessage { range: token.range, bytes: self.framed_bytes(message) };
        let mut inner = self.inner()?;
        if let Some(reading) = inner.reading(self.topic, name)
            && reading.of == (token.subscription, token.epoch)
        {
            reading.current = Some(current);
        }
        drop(inner);
        Ok(Reply::Messages(messages))
    }

    fn framed_bytes(&self, message: &Delivery) -> u64 {
        let content = String::from_utf8_lossy(&message.body);
        (FRAME_BYTES + self.topic.as_str().len() + content.len()) as u64
    }

    /// Acknowledges the message that was handed out last.
    pub(super) async fn ack_current(&self, name: &Name) -> Result<Reply, Refusal> {
        let (current, of) = {
            let mut inner = self.inner()?;
            rights::subscription(&inner, self.topic, name, self.principal)?;
            let Some(reading) = inner.reading(self.topic, name) else { return Err(not_in_force()) };
            (reading.current.take(), reading.of)
        };
        let Some(current) = current else { return Ok(Reply::Position(None)) };
        let CurrentMessage { range, bytes } = current;
        let change = Change::SettleCurrent { epoch: of.1, range, bytes };
        let outcome = self.shard.submit(Some(self.topic), Some(name), change).await;
        let mut inner = self.shard.lock();
        if let Some(reading) = inner.reading(self.topic, name).filter(|reading| reading.of == of) {
            match &outcome {
                Ok(_) => {
                    // It may have been handed out again before it was settled.
                    reading.current.take_if(|handed_out| handed_out.range.offset == range.offset);
                    reading.leases.settle(range.offset);
                    reading.frontier = None;
                }
                // It can be acknowledged again: what took effect does not count twice.
                Err(_) => drop(reading.current.get_or_insert(current)),
            }
        }
        inner.release(self.topic, name);
        inner.wake_one(self.topic, name);
        match outcome {
            // The subscription was set to another position meanwhile.
            Err(refusal) if refusal.code == Code::StaleToken => Ok(Reply::Position(None)),
            Err(refusal) => Err(refusal),
            // Another acknowledgement settled it.
            Ok(Outcome::Settled { now: 0, .. }) => Ok(Reply::Position(None)),
            Ok(_) => {
                let found = inner.fold.topic(self.topic).and_then(|topic| topic.subscription(name));
                Ok(Reply::Position(found.map(|found| found.cursor.legacy_bytes)))
            }
        }
    }
}
