//! A request to an endpoint: its body by mode, and its headers.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use millrace_contracts::topics::{BodyMode, Delivery, Name, SignatureKind, encode_ce, time_text};
use serde_json::value::RawValue;

use super::signature::{self, Key};

/// What a request is made of, beside the message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope<'a> {
    pub(crate) topic: &'a Name,
    pub(crate) subscription: &'a Name,
    pub(crate) mode: BodyMode,
    pub(crate) kind: SignatureKind,
    /// The time of the attempt, ms since the epoch.
    pub(crate) now_ms: i64,
}

/// The body and all headers of a request. Headers of the subscription's own come first: none of ours can be replaced.
pub(crate) fn build(
    envelope: Envelope<'_>,
    message: &Delivery,
    own: &[(String, String)],
    keys: &[Key],
) -> (HeaderMap, Vec<u8>) {
    let mut headers = HeaderMap::new();
    for (name, value) in own {
        set(&mut headers, name, value);
    }
    let body = match envelope.mode {
        BodyMode::Raw => {
            set(&mut headers, "content-type", &message.content_type);
            for (name, value) in message.header_attributes() {
                set(&mut headers, &name, &value);
            }
            message.body.clone()
        }
        BodyMode::CloudeventsBinary => {
            set(&mut headers, "content-type", &message.content_type);
            for (name, value) in context(envelope.topic, message) {
                set(&mut headers, &format!("ce-{name}"), &encode_ce(&value));
            }
            message.body.clone()
        }
        BodyMode::CloudeventsStructured => {
            set(&mut headers, "content-type", "application/cloudevents+json; charset=utf-8");
            let mut event: BTreeMap<String, Box<RawValue>> = BTreeMap::new();
            let text = |value: &str| serde_json::value::to_raw_value(value).ok();
            for (name, value) in context(envelope.topic, message) {
                event.extend(text(&value).map(|value| (name, value)));
            }
            event.extend(text(&message.content_type).map(|value| ("datacontenttype".to_owned(), value)));
            match message.json_body() {
                Some(data) => drop(event.insert("data".into(), data)),
                None => {
                    event.extend(text(&STANDARD.encode(&message.body)).map(|value| ("data_base64".to_owned(), value)));
                }
            }
            serde_json::to_vec(&event).unwrap_or_default()
        }
        BodyMode::Envelope => {
            set(&mut headers, "content-type", "application/json");
            let mut line = Vec::with_capacity(message.body.len() + 512);
            message.write_line(None, &mut line);
            line
        }
    };
    if let Some(key) = &message.key {
        set(&mut headers, "x-key", key);
    }
    let timestamp = envelope.now_ms.div_euclid(1_000);
    set(&mut headers, "webhook-id", &message.id);
    set(&mut headers, "webhook-timestamp", &timestamp.to_string());
    set(&mut headers, "webhook-signature", &signature::header(keys, envelope.kind, &message.id, timestamp, &body));
    set(&mut headers, "webhook-attempt", &message.attempt.to_string());
    set(&mut headers, "millrace-topic", &encode_ce(envelope.topic.as_str()));
    set(&mut headers, "millrace-subscription", &encode_ce(envelope.subscription.as_str()));
    set(&mut headers, "user-agent", concat!("Millrace/", env!("CARGO_PKG_VERSION")));
    (headers, body)
}

fn set(headers: &mut HeaderMap, name: &str, value: &str) {
    // What was published or configured was checked then.
    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
        headers.insert(name, value);
    }
}

/// The context attributes of a `CloudEvent`: those published, and defaults for what it must have.
fn context(topic: &Name, message: &Delivery) -> Vec<(String, String)> {
    let mut context: Vec<(String, String)> = vec![
        ("specversion".into(), "1.0".into()),
        ("id".into(), message.id.clone()),
        ("source".into(), format!("/v1/topics/{}", encode_ce(topic.as_str()))),
        ("type".into(), "millrace.message".into()),
    ];
    context.extend(time_text(message.published_ms).map(|time| ("time".to_owned(), time)));
    for (name, value) in &message.attributes {
        let name = name.strip_prefix("ce-").unwrap_or(name);
        // CloudEvents allows letters and digits only.
        let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        match context.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => known.clone_from(value),
            None if !name.is_empty() => context.push((name, value.clone())),
            None => {}
        }
    }
    context
}
