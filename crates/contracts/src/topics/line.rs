//! A message as it leaves: one line of JSON, and its attributes as headers. The same for readers that pull and endpoints.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::{Delivery, Message};

/// A time as the API writes it: RFC 3339, UTC, milliseconds.
pub fn time_text(ms: i64) -> Option<String> {
    Timestamp::from_millisecond(ms).ok().map(|time| format!("{time:.3}"))
}

/// Encodes a value for a header of the `CloudEvents` HTTP binding: all but printable ASCII without space, quote and percent
/// sign is percent-encoded.
pub fn encode_ce(value: &str) -> String {
    let mut encoded = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'!' | b'#'..=b'$' | b'&'..=b'~' => encoded.push(byte.into()),
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

impl Delivery {
    /// A message as it is handed out.
    pub fn new(message: &Message<'_>, offset: u64, token: String, attempt: u32) -> Self {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Self {
            id: message.id.to_owned(),
            offset,
            published_ms: message.published_ms,
            token,
            attempt,
            key: message.key.map(str::to_owned),
            content_type: message.content_type.to_owned(),
            attributes: message.attributes.iter().map(owned).collect(),
            body: message.body.to_vec(),
        }
    }

    /// The attributes as headers: `ce-*` by the `CloudEvents` HTTP binding, others as `x-attr-*`.
    pub fn header_attributes(&self) -> impl Iterator<Item = (Cow<'_, str>, Cow<'_, str>)> {
        self.attributes.iter().map(|(name, value)| {
            if name.starts_with("ce-") {
                (Cow::Borrowed(&**name), Cow::Owned(encode_ce(value)))
            } else {
                (Cow::Owned(format!("x-attr-{name}")), Cow::Borrowed(&**value))
            }
        })
    }

    /// Appends the message as one line of NDJSON, without the end of the line.
    pub fn write_line(&self, token: Option<&str>, out: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct Line<'a> {
            id: &'a str,
            offset: u64,
            published_at: Option<String>,
            #[serde(skip_serializing_if = "Option::is_none")]
            token: Option<&'a str>,
            attempt: u32,
            key: Option<&'a str>,
            attributes: Map<String, Value>,
            content_type: &'a str,
            body: Option<Box<RawValue>>,
            body_base64: Option<String>,
        }
        let body = self.json_body();
        let line = Line {
            id: &self.id,
            offset: self.offset,
            published_at: time_text(self.published_ms),
            token,
            attempt: self.attempt,
            key: self.key.as_deref(),
            attributes: self.attributes.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect(),
            content_type: &self.content_type,
            body_base64: body.is_none().then(|| STANDARD.encode(&self.body)),
            body,
        };
        let _ = serde_json::to_writer(out, &line);
    }

    /// The body if its content type is JSON and it parses: on one line, numbers as they were written.
    pub fn json_body(&self) -> Option<Box<RawValue>> {
        let essence = self.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence != "application/json" && !essence.ends_with("+json") {
            return None;
        }
        let text = std::str::from_utf8(&self.body).ok()?;
        // Line ends stand between tokens only: within a string JSON escapes them.
        let text = text.replace(['\n', '\r'], " ");
        RawValue::from_string(text.trim().to_owned()).ok()
    }
}
