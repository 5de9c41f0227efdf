//! A message on its way in: headers of a publish, and what both ways of publishing check.

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use millrace_contracts::topics::Published;
use millrace_contracts::{Code, Refusal, TIME_FORM};
use uuid::Uuid;

use super::fields::{invalid, time_of_text};
use millrace_service::http::idempotency_key;

/// Most attributes, and most bytes of their names and values together.
pub(super) const MAX_ATTRIBUTES: usize = 50;
pub(super) const MAX_ATTRIBUTE_BYTES: usize = 8 << 10;
/// Longest name and value of an attribute, longest ordering key, in bytes.
const MAX_NAME: usize = 256;
const MAX_VALUE: usize = 1 << 10;
pub(super) const MAX_KEY: usize = 1 << 10;
/// Longest idempotency key in bytes.
pub(super) const MAX_IDEMPOTENCY_KEY: usize = 128;
/// The media type of a body that gives none.
const OCTETS: &str = "application/octet-stream";
pub(super) const MAX_CONTENT_TYPE: usize = 256;

/// The message of a publish request: everything but its body.
pub(super) fn of_headers(headers: &HeaderMap, now_ms: i64) -> Result<Published, Refusal> {
    let mut attributes: Vec<(String, String)> = Vec::new();
    for name in headers.keys() {
        let text = name.as_str();
        let (attribute, encoded) = match text.strip_prefix("x-attr-") {
            Some(rest) if rest.starts_with("ce-") => {
                return Err(invalid("X-Attr-ce-*", "attributes of CloudEvents are given as ce-*".into()));
            }
            Some(rest) => (rest, false),
            None if text.starts_with("ce-") => (text, true),
            None => continue,
        };
        let value = one(headers, text, "X-Attr-*")?;
        let value = value.map(|value| ascii(value, "X-Attr-*")).transpose()?.unwrap_or_default();
        let value = if encoded { decode_ce(value)? } else { value.to_owned() };
        attributes.push((attribute.to_owned(), value));
    }
    let key = one(headers, "x-key", "X-Key")?.map(|value| ascii(value, "X-Key")).transpose()?;
    let after =
        one(headers, "x-deliver-after", "X-Deliver-After")?.map(|value| ascii(value, "X-Deliver-After")).transpose()?;
    let at = one(headers, "x-deliver-at", "X-Deliver-At")?.map(|value| ascii(value, "X-Deliver-At")).transpose()?;
    let content_type = one(headers, CONTENT_TYPE.as_str(), "content-type")?;
    let content_type = content_type.map(|value| ascii(value, "content-type")).transpose()?.unwrap_or(OCTETS);
    if content_type.len() > MAX_CONTENT_TYPE {
        return Err(invalid("content-type", format!("must have at most {MAX_CONTENT_TYPE} bytes")));
    }
    let idempotency_key = idempotency_key(headers)?.map(std::borrow::Cow::into_owned);
    if idempotency_key.as_ref().is_some_and(|key| !(1..=MAX_IDEMPOTENCY_KEY).contains(&key.len())) {
        return Err(invalid("idempotency-key", format!("must have 1..={MAX_IDEMPOTENCY_KEY} bytes")));
    }
    let published = Published {
        id: new_id(),
        key: key.map(str::to_owned),
        idempotency_key,
        deliver_at_ms: deliver_at(
            after,
            at.map(|text| time_of_text(text).ok_or("X-Deliver-At")),
            now_ms,
            "X-Deliver-After",
            "X-Deliver-At",
        )?,
        content_type: content_type.to_owned(),
        attributes,
        body: Vec::new(),
    };
    check(&published)?;
    Ok(published)
}

/// A new message's id: without a full stop, as Standard Webhooks wants it.
pub(super) fn new_id() -> String {
    Uuid::now_v7().simple().to_string()
}

/// What holds for every message, however it came in.
pub(super) fn check(published: &Published) -> Result<(), Refusal> {
    if published.attributes.len() > MAX_ATTRIBUTES {
        return Err(invalid("attributes", format!("at most {MAX_ATTRIBUTES} attributes")));
    }
    let bytes: usize = published.attributes.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > MAX_ATTRIBUTE_BYTES {
        return Err(invalid("attributes", format!("at most {MAX_ATTRIBUTE_BYTES} bytes of names and values")));
    }
    for (name, value) in &published.attributes {
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if !(1..=MAX_NAME).contains(&name.len()) || !name.bytes().all(legal) {
            return Err(invalid("attributes", "names are [a-z0-9-]{1,256}".into()));
        }
        if value.len() > MAX_VALUE {
            return Err(invalid("attributes", format!("values have at most {MAX_VALUE} bytes")));
        }
        // Those of CloudEvents are percent-encoded where they travel in headers, so they may hold any text.
        if !name.starts_with("ce-") && !printable(value) {
            return Err(invalid("attributes", "values are printable ASCII".into()));
        }
    }
    if let Some(key) = &published.key
        && (key.is_empty() || key.len() > MAX_KEY || !printable(key))
    {
        return Err(invalid("key", format!("must be 1..={MAX_KEY} bytes of printable ASCII")));
    }
    Ok(())
}

fn printable(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// When a message is to be delivered: after a pause, or at a time, not both.
pub(super) fn deliver_at(
    after: Option<&str>,
    at: Option<Result<i64, &'static str>>,
    now_ms: i64,
    after_field: &'static str,
    at_field: &'static str,
) -> Result<Option<i64>, Refusal> {
    match (after, at) {
        (Some(_), Some(_)) => {
            Err(Refusal::new(Code::DuplicateField, format!("{after_field} and {at_field} exclude each other"))
                .field(at_field))
        }
        (Some(after), None) => {
            let ms = super::fields::duration(after, after_field, &(0..=u64::MAX >> 1))?;
            Ok(Some(now_ms.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX))))
        }
        (None, Some(Ok(at))) => Ok(Some(at)),
        (None, Some(Err(field))) => Err(invalid(field, format!("must be {TIME_FORM}"))),
        (None, None) => Ok(None),
    }
}

/// A header that may be given once.
fn one<'a>(headers: &'a HeaderMap, name: &str, field: &'static str) -> Result<Option<&'a HeaderValue>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        let detail = format!("{} is given twice", millrace_service::shown(name));
        return Err(Refusal::new(Code::DuplicateField, detail).field(field));
    }
    Ok(first)
}

fn ascii<'a>(value: &'a HeaderValue, field: &'static str) -> Result<&'a str, Refusal> {
    value.to_str().map_err(|_| invalid(field, "must be printable ASCII".into()))
}

/// Decodes a header of the CloudEvents HTTP binding (percent-encoded UTF-8, optionally in double quotes).
fn decode_ce(value: &str) -> Result<String, Refusal> {
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let text = inner.map_or_else(|| value.to_owned(), |inner| inner.replace("\\\"", "\"").replace("\\\\", "\\"));
    let decoded = millrace_service::http::query_string::decode_segment(&text);
    decoded.map(std::borrow::Cow::into_owned).map_err(|error| invalid("ce-*", error.to_string()))
}

#[cfg(test)]
mod tests {
    use millrace_contracts::topics::encode_ce;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn attributes_keys_and_delays_come_from_headers() {
        let given = headers(&[
            ("x-attr-kind", "order"),
            ("ce-subject", "caf%C3%A9%20%22x%22"),
            ("x-key", "k1"),
            ("x-deliver-after", "10s"),
            ("content-type", "text/plain"),
            ("x-other", "ignored"),
        ]);
        let published = of_headers(&given, 1_000).unwrap();
        assert_eq!(published.attributes.len(), 2);
        assert!(published.attributes.contains(&("kind".into(), "order".into())));
        assert!(published.attributes.contains(&("ce-subject".into(), "café \"x\"".into())));
        assert_eq!(encode_ce("café \"x\""), "caf%C3%A9%20%22x%22");
        assert_eq!((published.key.as_deref(), published.deliver_at_ms), (Some("k1"), Some(11_000)));
        assert_eq!(published.content_type, "text/plain");
        assert!(!published.id.contains('.'));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (pairs, code) in [
            (&[("x-attr-ce-type", "x")][..], Code::InvalidField),
            (&[("x-attr-kind", "a"), ("x-attr-kind", "b")], Code::DuplicateField),
            (&[("x-attr-a_b", "a")], Code::InvalidField),
            (&[("x-deliver-after", "10")], Code::InvalidField),
            (&[("x-deliver-at", "tomorrow")], Code::InvalidField),
            (&[("x-deliver-after", "1s"), ("x-deliver-at", "5")], Code::DuplicateField),
            (&[("ce-type", "%zz")], Code::InvalidField),
            (&[("x-key", "")], Code::InvalidField),
        ] {
            assert_eq!(of_headers(&headers(pairs), 0).map_err(|refusal| refusal.code), Err(code), "{pairs:?}");
        }
    }
}
