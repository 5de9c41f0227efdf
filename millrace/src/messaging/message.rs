//! A message as a pull hands it out: alone, with headers, or as a line of a page.

use std::collections::BTreeMap;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use jiff::Timestamp;
use millrace_contracts::topics::Delivery;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::client::Response;

#[derive(Deserialize)]
struct Line<'a> {
    id: String,
    offset: u64,
    published_at: String,
    token: String,
    attempt: u32,
    key: Option<String>,
    content_type: String,
    attributes: BTreeMap<String, String>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    body_base64: Option<String>,
}

/// The messages of an answer to a pull of at most `max`.
pub(super) fn of_answer(answer: &Response, max: u64) -> anyhow::Result<Vec<Delivery>> {
    if answer.status != 200 {
        return Ok(Vec::new());
    }
    if max == 1 {
        return Ok(vec![alone(&answer.headers, answer.body.to_vec())?]);
    }
    let text = std::str::from_utf8(&answer.body).context("a page of messages is not UTF-8")?;
    text.lines().map(line).collect()
}

fn line(text: &str) -> anyhow::Result<Delivery> {
    let line: Line<'_> = serde_json::from_str(text).context("a line of a page is no message")?;
    let body = match (line.body, line.body_base64) {
        (_, Some(text)) => STANDARD.decode(text).context("body_base64 is not base64")?,
        (raw, None) => raw.map_or("null", RawValue::get).as_bytes().to_vec(),
    };
    let Line { id, offset, published_at, token, attempt, key, content_type, attributes, .. } = line;
    let (published_ms, attributes) = (milliseconds(&published_at)?, attributes.into_iter().collect());
    Ok(Delivery { id, offset, published_ms, token, attempt, key, content_type, attributes, body })
}

fn alone(headers: &HeaderMap, body: Vec<u8>) -> anyhow::Result<Delivery> {
    let maybe = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let must = |name: &str| maybe(name).with_context(|| format!("the answer has no header {name}"));
    let mut attributes = BTreeMap::new();
    for name in headers.keys().map(http::HeaderName::as_str) {
        let value = maybe(name).unwrap_or_default();
        if let Some(attribute) = name.strip_prefix("x-attr-") {
            attributes.insert(attribute.to_owned(), value);
        } else if name.starts_with("ce-") {
            attributes.insert(name.to_owned(), percent_decode_str(&value).decode_utf8_lossy().into_owned());
        }
    }
    Ok(Delivery {
        id: must("millrace-id")?,
        offset: must("millrace-offset")?.parse().context("millrace-offset")?,
        published_ms: milliseconds(&must("millrace-published-at")?)?,
        token: must("millrace-token")?,
        attempt: must("millrace-attempt")?.parse().context("millrace-attempt")?,
        key: maybe("x-key"),
        content_type: must(CONTENT_TYPE.as_str())?,
        attributes: attributes.into_iter().collect(),
        body,
    })
}

fn milliseconds(time: &str) -> anyhow::Result<i64> {
    Ok(time.parse::<Timestamp>().context("the time of a message")?.as_millisecond())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;

    fn answer(headers: &[(&'static str, &'static str)], body: &'static str) -> Response {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        Response { status: 200, retry_after: None, headers: map, body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn a_message_is_the_same_alone_and_in_a_page() {
        let alone = answer(
            &[
                ("content-type", "application/json"),
                ("millrace-id", "i"),
                ("millrace-offset", "7"),
                ("millrace-published-at", "2026-11-30T00:00:00.000Z"),
                ("millrace-token", "t"),
                ("millrace-attempt", "2"),
                ("x-key", "k"),
                ("x-attr-kind", "created"),
                ("ce-subject", "caf%C3%A9"),
            ],
            r#"{"n": 1.50}"#,
        );
        let line = r#"{"id":"i","offset":7,"published_at":"2026-11-30T00:00:00.000Z","token":"t","attempt":2,"key":"k","attributes":{"kind":"created","ce-subject":"café"},"content_type":"application/json","body":{"n": 1.50},"body_base64":null}"#;
        let one = of_answer(&alone, 1).unwrap();
        assert_eq!(of_answer(&answer(&[], line), 2).unwrap(), one);
        let printed = |message: &Delivery| {
            let mut out = Vec::new();
            message.write_line(None, &mut out);
            String::from_utf8(out).unwrap()
        };
        let (binary, printed) = (
            printed(&Delivery { content_type: "image/png".into(), body: vec![0xff], ..one[0].clone() }),
            printed(&one[0]),
        );
        assert!(printed.contains(r#""body":{"n": 1.50}"#) && !printed.contains("token"), "{printed}");
        assert!(binary.ends_with(r#""body":null,"body_base64":"/w=="}"#));
    }
}
