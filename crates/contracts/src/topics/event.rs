//! Events about subscriptions: the messages of the topic `millrace-events`.

use serde::{Deserialize, Serialize};

use super::{AttemptError, AttemptFailure, Delay, Message, Name, encode_ce, time_text};

/// A change of a subscription's state that its owner may want to learn of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionEvent {
    /// The topic.
    pub topic: Name,
    /// The subscription.
    pub subscription: Name,
    /// When it changed, ms since the epoch.
    pub at_ms: i64,
    /// What changed.
    pub kind: EventKind,
}

/// What changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// An endpoint did not take a message in [`EventKind::FAILING_ATTEMPTS`] attempts.
    Failing(FailedMessage),
    /// The subscription was suspended.
    Suspended {
        /// Why: `api`, `endpoint-gone` or `endpoint-failing`.
        reason: String,
    },
    /// It was suspended and was resumed, or it was failing and its endpoint took a message.
    Recovered,
    /// It gave a message up.
    DeadLettered {
        /// Why.
        reason: String,
        /// The message.
        message: FailedMessage,
    },
}

/// A message that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedMessage {
    /// Its offset in `messages`.
    pub offset: i64,
    /// Failed attempts.
    pub attempts: u32,
    /// The last one, of a push subscription.
    pub last: Option<AttemptFailure>,
}

impl EventKind {
    /// Failed attempts of one message after which its subscription counts as failing.
    pub const FAILING_ATTEMPTS: u32 = 4;

    /// The type of the event.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Failing(_) => "subscription.failing",
            Self::Suspended { .. } => "subscription.suspended",
            Self::Recovered => "subscription.recovered",
            Self::DeadLettered { .. } => "message.dead_lettered",
        }
    }
}

impl SubscriptionEvent {
    /// The id of the topic of events within its partition. No topic that a command creates has it: a coordinator's opening
    /// is the first command of a partition.
    pub const TOPIC_ID: u64 = 0;

    /// Appends the record of `messages`: a `CloudEvent` in structured mode, whose attributes are those to filter by.
    pub fn encode(&self, id: &str, out: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct Event<'a> {
            specversion: &'a str,
            id: &'a str,
            source: &'a str,
            r#type: &'a str,
            subject: &'a str,
            time: Option<String>,
            datacontenttype: &'a str,
            data: Data<'a>,
        }
        let subject = format!("{}/{}", self.topic, self.subscription);
        let part = |name: &Name| encode_ce(name.as_str()).replace('#', "%23");
        let source = format!("/v1/topics/{}/subscriptions/{}", part(&self.topic), part(&self.subscription));
        let kind = self.kind.as_str();
        let body = Event {
            specversion: "1.0",
            id,
            source: &source,
            r#type: kind,
            subject: &subject,
            time: time_text(self.at_ms),
            datacontenttype: "application/json",
            data: self.data(),
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let message = Message {
            topic_id: Self::TOPIC_ID,
            published_ms: self.at_ms,
            id,
            delay: Delay::None,
            key: Some(&subject),
            idempotency_key: None,
            nonce: None,
            content_type: "application/cloudevents+json; charset=utf-8",
            attributes: vec![("ce-type", kind), ("ce-source", &source), ("ce-subject", &subject)],
            body: &body,
        };
        message.encode(out);
    }

    fn data(&self) -> Data<'_> {
        let (reason, message) = match &self.kind {
            EventKind::Failing(message) => (None, Some(message)),
            EventKind::Suspended { reason } => (Some(&**reason), None),
            EventKind::Recovered => (None, None),
            EventKind::DeadLettered { reason, message } => (Some(&**reason), Some(message)),
        };
        let last = message.and_then(|message| message.last);
        Data {
            topic: &self.topic,
            subscription: &self.subscription,
            reason,
            offset: message.map(|message| message.offset),
            attempts: message.map(|message| message.attempts),
            last_status: last.and_then(|last| last.status),
            last_error: last.map(|last| last.error).map(AttemptError::as_str),
        }
    }
}

/// The payload of an event; members that an event does not have are absent.
#[derive(Serialize)]
struct Data<'a> {
    topic: &'a Name,
    subscription: &'a Name,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_error: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_event_is_a_cloud_event() {
        let name = |text: &str| Name::parse(text).unwrap();
        let last = AttemptFailure { at_ms: 5, error: AttemptError::HttpStatus, status: Some(503) };
        let message = FailedMessage { offset: 7, attempts: 4, last: Some(last) };
        let kind = EventKind::DeadLettered { reason: "max-age".into(), message };
        let event = SubscriptionEvent { topic: name("a#ä"), subscription: name("hook"), at_ms: 1_000, kind };
        let mut record = Vec::new();
        event.encode("evt-3-9", &mut record);
        let message = Message::decode(&record).unwrap();
        assert_eq!((message.id, message.topic_id, message.key), ("evt-3-9", 0, Some("a#ä/hook")));
        let source = "/v1/topics/a%23%C3%A4/subscriptions/hook";
        let expected = [("ce-type", "message.dead_lettered"), ("ce-source", source), ("ce-subject", "a#ä/hook")];
        assert_eq!(message.attributes, expected);
        let body: Value = serde_json::from_slice(message.body).unwrap();
        let data = json!({
            "topic": "a#ä", "subscription": "hook", "reason": "max-age", "offset": 7, "attempts": 4,
            "last_status": 503, "last_error": "http-status",
        });
        let expected = json!({
            "specversion": "1.0", "id": "evt-3-9", "source": source, "type": "message.dead_lettered",
            "subject": "a#ä/hook", "time": "1970-01-01T00:00:01.000Z", "datacontenttype": "application/json", "data": data,
        });
        assert_eq!(body, expected);
        let recovered = SubscriptionEvent { kind: EventKind::Recovered, ..event };
        assert_eq!(serde_json::to_value(recovered.data()).unwrap(), json!({"topic": "a#ä", "subscription": "hook"}));
    }
}
