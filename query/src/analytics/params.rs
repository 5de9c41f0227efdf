//! The query strings of reads: `timestamp` of an hour; `from`, `to` and `step` of a range; what the counts must contain.

use std::borrow::Cow;

use millrace_contracts::{Code, Hour, Refusal, TIME_FORM, time_ms};
use millrace_service::http::query_string::{Unknown, parameters};

use super::requirement::{POSITION, RequirementParams, STALE, WAIT};

const TIMESTAMP: &str = "timestamp";

/// Parses the timestamp of an hour, returned in ms since the epoch, and what its counts must contain.
///
/// # Errors
/// A refusal with the parameter's name, unless the query string has one valid `timestamp`.
pub(crate) fn timestamp(query: Option<&str>) -> Result<(i64, RequirementParams<'_>), Refusal> {
    let query = query.unwrap_or_default();
    if let Some(value) = query.strip_prefix("timestamp=").and_then(plain) {
        return Ok((value, RequirementParams::default()));
    }
    let [found, position, wait, stale] = parameters(query, [TIMESTAMP, POSITION, WAIT, STALE], Unknown::Refuse)?;
    let Some(value) = found else {
        return Err(Refusal::new(Code::MissingField, format!("timestamp is missing: {TIME_FORM}")).field(TIMESTAMP));
    };
    let timestamp_ms = time(&value, TIMESTAMP, Hour::MAX.end_ms() - 1)?;
    Ok((timestamp_ms, RequirementParams { position, wait, stale }))
}

/// What a row of a range is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Hour,
    /// A UTC day.
    Day,
}

impl Step {
    pub(crate) const ALL: [Self; 2] = [Self::Hour, Self::Day];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }
}

/// The parameters of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RangeQuery {
    /// The hour that contains `from`.
    pub(crate) from: Hour,
    /// The first hour that begins at `to` or later.
    pub(crate) to: Hour,
    pub(crate) step: Step,
}

/// Parses a range of at most `max_hours` hours, and what its counts must contain.
///
/// # Errors
/// A refusal with the parameter's name.
pub(crate) fn range(query: Option<&str>, max_hours: u32) -> Result<(RangeQuery, RequirementParams<'_>), Refusal> {
    let names = ["from", "to", "step", POSITION, WAIT, STALE];
    let [from, to, step, position, wait, stale] = parameters(query.unwrap_or_default(), names, Unknown::Refuse)?;
    let bound = |value: Option<Cow<'_, str>>, name: &'static str| match value {
        Some(value) => time(&value, name, Hour::MAX.end_ms()),
        None => Err(Refusal::new(Code::MissingField, format!("{name} is missing: {TIME_FORM}")).field(name)),
    };
    let (from_ms, to_ms) = (bound(from, "from")?, bound(to, "to")?);
    let step = match step.as_deref() {
        None => Step::Hour,
        Some(word) => Step::ALL
            .into_iter()
            .find(|step| step.as_str() == word)
            .ok_or_else(|| Refusal::new(Code::InvalidField, "must be hour or day").field("step"))?,
    };
    if to_ms <= from_ms {
        return Err(Refusal::new(Code::InvalidField, "must be after from").field("to"));
    }
    let range = RangeQuery { from: Hour::of_ms(from_ms), to: Hour::of_ms(to_ms - 1).plus(1), step };
    let hours = range.to.index() - range.from.index();
    if hours > i64::from(max_hours) {
        let detail = format!("{hours} hours are more than the maximum of {max_hours}");
        return Err(Refusal::new(Code::OutsideWindow, detail).field("to"));
    }
    Ok((range, RequirementParams { position, wait, stale }))
}

fn time(value: &str, name: &'static str, max: i64) -> Result<i64, Refusal> {
    let refused = || Refusal::new(Code::InvalidField, format!("must be {TIME_FORM}, up to {max} ms")).field(name);
    time_ms(value).filter(|&ms| ms <= max).ok_or_else(refused)
}

/// The common form of a timestamp, which needs no percent-decoding.
fn plain(value: &str) -> Option<i64> {
    digits(value).filter(|&ms| ms < Hour::MAX.end_ms())
}

/// A number of digits only: no sign, space or exponent.
fn digits(value: &str) -> Option<i64> {
    let all = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| value.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_one_timestamp_and_nothing_else() {
        for (query, expected) in [
            ("timestamp=0", 0),
            ("timestamp=123", 123),
            ("timestamp=0000000000000000000000000123", 123),
            ("&timestamp=123&", 123),
            ("%74imestamp=%31", 1),
            ("timestamp=1970-01-01T01Z", 3_600_000),
            ("timestamp=1970-01-01T02:00:00%2B01:00", 3_600_000),
            (&*format!("timestamp={}", Hour::MAX.end_ms() - 1), Hour::MAX.end_ms() - 1),
        ] {
            let parsed = timestamp(Some(query)).map_err(|refusal| refusal.code);
            assert_eq!(parsed, Ok((expected, RequirementParams::default())), "{query}");
        }
        for (query, code, field) in [
            ("", Code::MissingField, "timestamp"),
            ("timestamp", Code::InvalidField, "timestamp"),
            ("timestamp=", Code::InvalidField, "timestamp"),
            ("timestamp=-1", Code::InvalidField, "timestamp"),
            ("timestamp=+1", Code::InvalidField, "timestamp"),
            ("timestamp=%2B1", Code::InvalidField, "timestamp"),
            ("timestamp=1.0", Code::InvalidField, "timestamp"),
            ("timestamp=1e3", Code::InvalidField, "timestamp"),
            ("timestamp=0x10", Code::InvalidField, "timestamp"),
            ("timestamp=%D9%A1", Code::InvalidField, "timestamp"),
            (&*format!("timestamp={}", Hour::MAX.end_ms()), Code::InvalidField, "timestamp"),
            ("timestamp=99999999999999999999", Code::InvalidField, "timestamp"),
            ("timestamp=%zz", Code::InvalidEncoding, "timestamp"),
            ("timestamp=1%", Code::InvalidEncoding, "timestamp"),
            ("timestamp=%ff", Code::InvalidEncoding, "timestamp"),
            ("%zz=1", Code::InvalidEncoding, "%zz"),
            ("timestamp=1&timestamp=1", Code::DuplicateField, "timestamp"),
            ("timestamp=1&user=kek", Code::UnknownField, "user"),
            ("Timestamp=1", Code::UnknownField, "Timestamp"),
            ("timestamp=1&=", Code::UnknownField, ""),
        ] {
            let refusal = timestamp(Some(query)).unwrap_err();
            assert_eq!((refusal.code, refusal.field.as_deref()), (code, Some(field)), "{query}");
        }
        assert_eq!(timestamp(None).unwrap_err().code, Code::MissingField);
        let terms =
            RequirementParams { position: Some("a/1@2".into()), wait: Some("2s".into()), stale: Some("ok".into()) };
        assert_eq!(timestamp(Some("timestamp=1&min-position=a/1%402&wait=2s&stale=ok")).unwrap(), (1, terms));
    }

    #[test]
    fn widens_a_range_to_whole_hours() {
        let hours =
            |query: &str| range(Some(query), 48).map(|(range, _)| (range.from.index(), range.to.index(), range.step));
        for (query, expected) in [
            ("from=0&to=1", (0, 1, Step::Hour)),
            ("from=3599999&to=3600001", (0, 2, Step::Hour)),
            ("to=7200000&from=3600000&step=hour", (1, 2, Step::Hour)),
            ("to=1970-01-02&from=1970-01-01T23:00Z", (23, 24, Step::Hour)),
            ("from=0&to=172800000&step=day", (0, 48, Step::Day)),
        ] {
            assert_eq!(hours(query), Ok(expected), "{query}");
        }
        let end = Hour::MAX.end_ms();
        assert!(range(Some(&format!("from={}&to={end}", end - 1)), 48).is_ok());
        for (query, code, field) in [
            ("to=1", Code::MissingField, "from"),
            ("from=1", Code::MissingField, "to"),
            ("from=1&to=1", Code::InvalidField, "to"),
            ("from=2&to=1", Code::InvalidField, "to"),
            ("from=-1&to=1", Code::InvalidField, "from"),
            (&*format!("from=1&to={}", end + 1), Code::InvalidField, "to"),
            ("from=0&to=1&step=week", Code::InvalidField, "step"),
            ("from=0&to=1&to=1", Code::DuplicateField, "to"),
            ("from=0&to=1&timestamp=1", Code::UnknownField, "timestamp"),
            ("from=%ff&to=1", Code::InvalidEncoding, "from"),
            ("from=0&to=172800001", Code::OutsideWindow, "to"),
        ] {
            let refusal = range(Some(query), 48).unwrap_err();
            assert_eq!((refusal.code, refusal.field.as_deref()), (code, Some(field)), "{query}");
        }
    }
}
