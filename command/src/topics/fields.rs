//! JSON bodies, read strictly: known members with their types, each refused by name.

use std::time::Duration;

use axum::extract::Request;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, IF_MATCH};
use jiff::Timestamp;
use millrace_base::Span;
use millrace_contracts::{Code, Refusal};
use millrace_service::http::read_body;
use millrace_service::shown;
use serde_json::{Map, Value};

use crate::app::App;

/// The members of a JSON object that are not read yet.
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a request's body; a missing one is an empty object.
    pub(super) async fn of_body(app: &App, request: Request) -> Result<Self, Refusal> {
        json_only(request.headers())?;
        let body = read_body(request, &app.config.limits, &app.bodies).await?;
        if body.is_empty() {
            return Ok(Self(Map::new()));
        }
        let malformed = |why: String| Refusal::new(Code::MalformedBody, why);
        match serde_json::from_slice(&body) {
            Ok(Value::Object(members)) => Ok(Self(members)),
            Ok(_) => Err(malformed("the body must be a JSON object".into())),
            Err(error) => Err(malformed(format!("the body is not JSON: {error}"))),
        }
    }

    /// A member's value; `None` if it is absent.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    /// Whether a member is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    pub(super) fn text(&mut self, name: &'static str) -> Result<Option<String>, Refusal> {
        self.typed(name, "a text", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    pub(super) fn flag(&mut self, name: &'static str) -> Result<Option<bool>, Refusal> {
        self.typed(name, "true or false", |value| value.as_bool())
    }

    pub(super) fn number(
        &mut self,
        name: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, Refusal> {
        let wanted = format!("a whole number in {}..={}", range.start(), range.end());
        self.typed(name, &wanted, |value| value.as_u64().filter(|number| range.contains(number)))
    }

    /// A duration as text, in ms.
    pub(super) fn duration(
        &mut self,
        name: &'static str,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        duration(value.as_str().unwrap_or("?"), name, &range).map(Some)
    }

    /// A member that may be `null`: absent, null, or a value.
    #[expect(clippy::option_option, reason = "a member of a merge patch is absent, null or a value")]
    pub(super) fn nullable<T>(
        &mut self,
        name: &'static str,
        read: impl FnOnce(&mut Self) -> Result<Option<T>, Refusal>,
    ) -> Result<Option<Option<T>>, Refusal> {
        match self.0.get(name) {
            None => Ok(None),
            Some(Value::Null) => {
                self.0.remove(name);
                Ok(Some(None))
            }
            Some(_) => read(self).map(Some),
        }
    }

    fn typed<T>(
        &mut self,
        name: &'static str,
        wanted: &str,
        read: impl FnOnce(Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        read(value).map(Some).ok_or_else(|| invalid(name, format!("must be {wanted}")))
    }

    /// Refuses what is left.
    pub(super) fn finish(self) -> Result<(), Refusal> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(name) => {
                let name = shown(name);
                Err(Refusal::new(Code::UnknownField, format!("unknown member \"{name}\"")).field(name))
            }
        }
    }
}

pub(super) fn invalid(field: &'static str, detail: String) -> Refusal {
    Refusal::new(Code::InvalidField, detail).field(field)
}

/// Reads a duration, in ms.
pub(super) fn duration(text: &str, field: &'static str, range: &std::ops::RangeInclusive<u64>) -> Result<u64, Refusal> {
    let ms = Span::parse(text).map(Span::as_millis).filter(|ms| range.contains(ms));
    ms.ok_or_else(|| {
        let bound = |ms: &u64| duration_text(*ms);
        invalid(field, format!("must be a duration in \"{}\"..=\"{}\"", bound(range.start()), bound(range.end())))
    })
}

/// A duration as the API writes it: the largest of h, m, s, ms that divides it.
pub(super) fn duration_text(ms: u64) -> String {
    const HOUR: u64 = 3_600_000;
    if ms > 0 && ms.is_multiple_of(HOUR) {
        format!("{}h", ms / HOUR)
    } else {
        Span(Duration::from_millis(ms)).to_string()
    }
}

/// A time as the API writes it: RFC 3339, UTC, milliseconds.
pub(super) fn time_text(ms: i64) -> Option<String> {
    Timestamp::from_millisecond(ms).ok().map(|time| format!("{time:.3}"))
}

/// Reads a time: RFC 3339, or ms since the epoch.
pub(super) fn time(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().filter(|ms| Timestamp::from_millisecond(*ms).is_ok()),
        Value::String(text) => time_of_text(text),
        _ => None,
    }
}

/// Reads a time of a header.
pub(super) fn time_of_text(text: &str) -> Option<i64> {
    match text.parse::<i64>() {
        Ok(ms) => Timestamp::from_millisecond(ms).is_ok().then_some(ms),
        Err(_) => text.parse::<Timestamp>().ok().map(Timestamp::as_millisecond),
    }
}

/// A body of another type than JSON is refused; none at all is fine.
fn json_only(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(value) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let text = value.to_str().unwrap_or("?");
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // curl -d sends the form type unless told otherwise; the calls here are made by hand, too.
    if matches!(&*essence, "application/json" | "application/merge-patch+json" | "application/x-www-form-urlencoded") {
        return Ok(());
    }
    let detail = format!("the body is application/json, not \"{}\"", shown(text));
    Err(Refusal::new(Code::UnsupportedMediaType, detail).field("content-type"))
}

/// The request's `If-Match`.
pub(super) fn if_match(headers: &HeaderMap) -> Option<String> {
    let lines: Vec<&str> = headers.get_all(IF_MATCH).iter().map(|value| value.to_str().unwrap_or("?")).collect();
    (!lines.is_empty()).then(|| lines.join(","))
}
