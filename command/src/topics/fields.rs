//! JSON bodies, read strictly: known members with their types, each refused by name.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use axum::extract::Request;
use http::HeaderMap;
use http::header::{CONTENT_TYPE, IF_MATCH};
use millrace_base::Span;
pub(super) use millrace_contracts::topics::time_text;
use millrace_contracts::{Code, Hour, Refusal, time_ms};
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
        self.typed(name, &wanted, |value| whole(&value).filter(|number| range.contains(number)))
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
            Some(name) => Err(unknown_member(name)),
        }
    }
}

/// The refusal of a member that is not known.
pub(super) fn unknown_member(name: &str) -> Refusal {
    let name = shown(name);
    Refusal::new(Code::UnknownField, format!("unknown member \"{name}\"")).field(name)
}

pub(super) fn invalid(field: &'static str, detail: String) -> Refusal {
    Refusal::new(Code::InvalidField, detail).field(field)
}

/// Reads a whole number of a query string.
pub(super) fn query_number<T: FromStr + PartialOrd + Display>(
    text: &str,
    field: &'static str,
    range: &RangeInclusive<T>,
) -> Result<T, Refusal> {
    let number = text.parse().ok().filter(|number| range.contains(number));
    number.ok_or_else(|| invalid(field, format!("must be a whole number in {}..={}", range.start(), range.end())))
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

/// A duration that was measured, to two units, rounded down: `71h 59m`, `4m 2s`, `17s`.
pub(super) fn measured_text(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    let units = match (hours, minutes) {
        (0, 0) => return format!("{seconds}s"),
        (0, _) => [(minutes, "m"), (seconds % 60, "s")],
        _ => [(hours, "h"), (minutes, "m")],
    };
    let shown = units.iter().filter(|(number, _)| *number > 0).map(|(number, unit)| format!("{number}{unit}"));
    shown.collect::<Vec<_>>().join(" ")
}

/// A whole number, which JSON may write as `5.0`.
pub(super) fn whole(value: &Value) -> Option<u64> {
    const EXACT: std::ops::Range<f64> = 0.0..9_007_199_254_740_992.0;
    value.as_u64().or_else(|| {
        let number = value.as_f64().filter(|number| number.fract() == 0.0 && EXACT.contains(number))?;
        format!("{number:.0}").parse().ok()
    })
}

/// The latest time, in ms since the epoch: the last one that every offset from UTC can be written for.
pub(super) const MAX_TIME_MS: i64 = Hour::MAX.start_ms();

fn counted(ms: i64) -> Option<i64> {
    (0..=MAX_TIME_MS).contains(&ms).then_some(ms)
}

/// Reads a time: ISO 8601, or ms since the epoch.
pub(super) fn time(value: &Value) -> Option<i64> {
    match value {
        Value::Number(_) => whole(value).and_then(|ms| counted(i64::try_from(ms).ok()?)),
        Value::String(text) => time_of_text(text),
        _ => None,
    }
}

/// Reads a time of a header.
pub(super) fn time_of_text(text: &str) -> Option<i64> {
    time_ms(text).and_then(counted)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_numbers_may_have_a_point() {
        assert_eq!((whole(&json!(5)), whole(&json!(5.0)), whole(&json!(u64::MAX))), (Some(5), Some(5), Some(u64::MAX)));
        for bad in [json!(5.5), json!(-1), json!(-1.0), json!(1e300), json!("5"), json!(null)] {
            assert_eq!(whole(&bad), None, "{bad}");
        }
    }

    #[test]
    fn a_measured_duration_has_two_units_at_most() {
        for (ms, text) in [
            (0, "0s"),
            (999, "0s"),
            (17_900, "17s"),
            (60_000, "1m"),
            (242_000, "4m 2s"),
            (3_600_000, "1h"),
            (259_139_961, "71h 58m"),
        ] {
            assert_eq!(measured_text(ms), text);
            assert!(Span::parse(text).is_some(), "{text}");
        }
    }

    #[test]
    fn times_are_within_what_can_be_written() {
        assert_eq!(time(&json!(MAX_TIME_MS)), Some(MAX_TIME_MS));
        assert_eq!(time(&json!("9999-12-30T22:00:00Z")), Some(MAX_TIME_MS));
        assert_eq!((time_of_text("1"), time(&json!("1970-01-01T00:00:01+00:00"))), (Some(1), Some(1_000)));
        for bad in [json!(MAX_TIME_MS + 1), json!(-1), json!("tomorrow"), json!({})] {
            assert_eq!(time(&bad), None, "{bad}");
        }
    }
}
