//! One event between a line and a batch. Validated like the command service does, except for the accepted timestamps, which are
//! the service's settings: a line that fails here would be refused there.

use std::borrow::Cow;
use std::io::Write as _;

use millrace_base::limits::{MAX_EVENT_ID_BYTES, MAX_USER_BYTES};
use millrace_contracts::{Code, Kind, Refusal};
use millrace_service::shown;

/// Names of the fields, in the order of [`Field`].
pub(super) const FIELDS: [&str; 4] = ["timestamp", "user", "event", "event_id"];

/// The event of a line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event<'a> {
    timestamp_ms: i64,
    user: Cow<'a, str>,
    kind: Kind,
    own_id: Option<Cow<'a, str>>,
}

/// Why a line is invalid.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) code: Code,
    /// The invalid field, if one is.
    pub(super) field: Option<&'static str>,
    /// For people; repeats at most 64 characters of the line.
    pub(super) detail: String,
}

impl Fault {
    pub(super) fn new(code: Code, field: Option<&'static str>, detail: impl Into<String>) -> Self {
        Self { code, field, detail: detail.into() }
    }

    pub(super) fn missing(field: &'static str) -> Self {
        Self::new(Code::MissingField, Some(field), format!("{field} is missing"))
    }
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let field = FIELDS.into_iter().find(|name| refusal.field.as_deref() == Some(name));
        Self::new(refusal.code, field, refusal.detail)
    }
}

impl<'a> Event<'a> {
    /// Validates the [`FIELDS`] of a record of CSV. An empty cell means no id.
    pub(super) fn of_columns([timestamp, user, kind, event_id]: [&'a str; 4]) -> Result<Self, Fault> {
        Self::new(timestamp, user.into(), kind, Some(event_id).filter(|id| !id.is_empty()).map(Cow::Borrowed))
    }

    /// Validates the fields.
    pub(super) fn new(
        timestamp: &str,
        user: Cow<'a, str>,
        kind: &str,
        event_id: Option<Cow<'a, str>>,
    ) -> Result<Self, Fault> {
        let invalid = |field, detail| Fault::new(Code::InvalidField, Some(field), detail);
        let digits = !timestamp.is_empty() && timestamp.bytes().all(|byte| byte.is_ascii_digit());
        let Some(timestamp_ms) = digits.then(|| timestamp.parse().ok()).flatten() else {
            let detail =
                format!("timestamp is not an unsigned decimal integer of milliseconds: \"{}\"", shown(timestamp));
            return Err(invalid("timestamp", detail));
        };
        let Some(kind) = Kind::parse(kind) else {
            return Err(invalid("event", format!("event is click or impression, not \"{}\"", shown(kind))));
        };
        let texts = [("user", Some(&user), MAX_USER_BYTES), ("event_id", event_id.as_ref(), MAX_EVENT_ID_BYTES)];
        for (field, text, max) in texts {
            let Some(text) = text else { continue };
            if text.is_empty() || text.len() > max {
                return Err(invalid(field, format!("{field} has {} bytes; 1..={max} are allowed", text.len())));
            }
            if text.chars().any(char::is_control) {
                return Err(invalid(field, format!("{field} has a control character")));
            }
        }
        Ok(Self { timestamp_ms, user, kind, own_id: event_id })
    }

    /// Appends a line of a batch. The event's own id takes precedence over the one derived from the line.
    pub(super) fn put(&self, ids: &str, line: u64, out: &mut Vec<u8>) {
        let written = write!(out, "{{\"timestamp\":{},\"user\":", self.timestamp_ms)
            .and_then(|()| Ok(serde_json::to_writer(&mut *out, &self.user)?))
            .and_then(|()| write!(out, ",\"event\":\"{}\",\"event_id\":", self.kind.as_str()))
            .and_then(|()| match &self.own_id {
                Some(own) => Ok(serde_json::to_writer(&mut *out, own)?),
                None => write!(out, "\"{ids}-{line}\""),
            })
            .and_then(|()| out.write_all(b"}\n"));
        written.expect("writing to memory does not fail");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event<'a>(timestamp: &str, user: &'a str, kind: &str, id: Option<&'a str>) -> Result<Event<'a>, Fault> {
        Event::new(timestamp, user.into(), kind, id.map(Cow::Borrowed))
    }

    #[test]
    fn own_id_takes_precedence_over_the_derived_one() {
        let put = |id| {
            let mut out = Vec::new();
            event("123", "a\"b", "click", id).unwrap().put("f", 7, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(put(None), "{\"timestamp\":123,\"user\":\"a\\\"b\",\"event\":\"click\",\"event_id\":\"f-7\"}\n");
        assert!(put(Some("own")).ends_with("\"event_id\":\"own\"}\n"), "{}", put(Some("own")));
    }

    #[test]
    fn columns_are_events() {
        for (columns, expected) in [
            (["5", "kek", "click", "i"], event("5", "kek", "click", Some("i"))),
            (["5", "kek", "impression", ""], event("5", "kek", "impression", None)),
        ] {
            assert_eq!(Event::of_columns(columns), expected);
            assert!(expected.is_ok());
        }
        assert_eq!(Event::of_columns(["5", "a\nb", "click", ""]).unwrap_err().field, Some("user"));
        let fault = Fault::from(Refusal::new(Code::InvalidEncoding, "user is not valid UTF-8").field("user"));
        assert_eq!(fault, Fault::new(Code::InvalidEncoding, Some("user"), "user is not valid UTF-8"));
    }

    #[test]
    fn reports_invalid_fields() {
        let long = "x".repeat(300);
        for (timestamp, user, kind, id, field) in [
            ("", "u", "click", None, "timestamp"),
            ("+1", "u", "click", None, "timestamp"),
            ("1.0", "u", "click", None, "timestamp"),
            ("9223372036854775808", "u", "click", None, "timestamp"),
            (&*long, "u", "click", None, "timestamp"),
            ("1", "", "click", None, "user"),
            ("1", &*long, "click", None, "user"),
            ("1", "a\nb", "click", None, "user"),
            ("1", "u", "Click", None, "event"),
            ("1", "u", &*long, None, "event"),
            ("1", "u", "click", Some(""), "event_id"),
            ("1", "u", "click", Some(&long[..129]), "event_id"),
        ] {
            let fault = event(timestamp, user, kind, id).unwrap_err();
            assert_eq!((fault.code, fault.field), (Code::InvalidField, Some(field)), "{fault:?}");
            assert!(fault.detail.chars().count() < 140, "{fault:?}");
        }
    }
}
