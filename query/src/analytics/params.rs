//! The query strings of reads: `timestamp` of an hour; `from`, `to` and `step` of a range.

use std::borrow::Cow;

use millrace_contracts::{Code, Hour};
use millrace_service::{Problem, shown};

const TIMESTAMP: &str = "timestamp";

/// Parses the timestamp of an hour, in ms since the epoch.
///
/// # Errors
/// A problem with the parameter's name, unless the query string is one valid `timestamp`.
pub(crate) fn timestamp(query: Option<&str>) -> Result<i64, Problem> {
    let query = query.unwrap_or_default();
    if let Some(value) = query.strip_prefix("timestamp=").and_then(plain) {
        return Ok(value);
    }
    let [found] = values(query, [TIMESTAMP])?;
    let Some(value) = found else {
        return Err(Problem::new(Code::MissingField, "timestamp is missing: ms since the epoch").field(TIMESTAMP));
    };
    number(&value, TIMESTAMP, Hour::MAX.end_ms() - 1)
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
    /// The hour that holds `from`.
    pub(crate) from: Hour,
    /// The first hour that begins at `to` or later.
    pub(crate) to: Hour,
    pub(crate) step: Step,
}

/// Parses a range of at most `max_hours` hours.
///
/// # Errors
/// A problem with the parameter's name.
pub(crate) fn range(query: Option<&str>, max_hours: u32) -> Result<RangeQuery, Problem> {
    let [from, to, step] = values(query.unwrap_or_default(), ["from", "to", "step"])?;
    let bound = |value: Option<Cow<'_, str>>, name: &'static str| match value {
        Some(value) => number(&value, name, Hour::MAX.end_ms()),
        None => Err(Problem::new(Code::MissingField, format!("{name} is missing: ms since the epoch")).field(name)),
    };
    let (from_ms, to_ms) = (bound(from, "from")?, bound(to, "to")?);
    let step = match step.as_deref() {
        None => Step::Hour,
        Some(word) => Step::ALL
            .into_iter()
            .find(|step| step.as_str() == word)
            .ok_or_else(|| Problem::new(Code::InvalidField, "must be hour or day").field("step"))?,
    };
    if to_ms <= from_ms {
        return Err(Problem::new(Code::InvalidField, "must be after from").field("to"));
    }
    let range = RangeQuery { from: Hour::of_ms(from_ms), to: Hour::of_ms(to_ms - 1).plus(1), step };
    let hours = range.to.index() - range.from.index();
    if hours > i64::from(max_hours) {
        let detail = format!("{hours} hours are more than the maximum of {max_hours}");
        return Err(Problem::new(Code::OutsideWindow, detail).field("to"));
    }
    Ok(range)
}

/// The values of these parameters, none of them twice, and no other.
fn values<'q, const N: usize>(query: &'q str, names: [&'static str; N]) -> Result<[Option<Cow<'q, str>>; N], Problem> {
    let mut found = [const { None }; N];
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let Some(name) = decoded(name, Plus::Space) else {
            return Err(Problem::new(Code::InvalidEncoding, "a parameter's name is not valid percent-encoded UTF-8")
                .field(shown(name)));
        };
        let Some(i) = names.iter().position(|known| *known == name) else {
            let detail = format!("no such parameter; there are {}", names.join(", "));
            return Err(Problem::new(Code::UnknownField, detail).field(shown(&name)));
        };
        let Some(value) = decoded(value, Plus::Space) else {
            return Err(Problem::new(Code::InvalidEncoding, "not valid percent-encoded UTF-8").field(names[i]));
        };
        if found[i].replace(value).is_some() {
            return Err(Problem::new(Code::DuplicateField, "given more than once").field(names[i]));
        }
    }
    Ok(found)
}

fn number(value: &str, name: &'static str, most: i64) -> Result<i64, Problem> {
    digits(value).filter(|&ms| ms <= most).ok_or_else(|| {
        let detail = format!("not an unsigned decimal number of ms from 0 to {most}");
        Problem::new(Code::InvalidField, detail).field(name)
    })
}

/// A timestamp in plain digits.
fn plain(value: &str) -> Option<i64> {
    digits(value).filter(|&ms| ms < Hour::MAX.end_ms())
}

/// Digits alone.
fn digits(value: &str) -> Option<i64> {
    let all = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    all.then(|| value.parse().ok()).flatten()
}

/// What `+` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plus {
    /// A space, as in a query string.
    Space,
    /// Itself, as in a path.
    Plus,
}

/// Undoes percent-encoding; `None` if it is broken, or does not give UTF-8.
pub(crate) fn decoded(raw: &str, plus: Plus) -> Option<Cow<'_, str>> {
    if !raw.bytes().any(|byte| byte == b'%' || (byte == b'+' && plus == Plus::Space)) {
        return Some(Cow::Borrowed(raw));
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    loop {
        match rest {
            [] => break,
            [b'%', high, low, tail @ ..] => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
                rest = tail;
            }
            [b'%', ..] => return None,
            [byte, tail @ ..] => {
                bytes.push(if *byte == b'+' && plus == Plus::Space { b' ' } else { *byte });
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
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
            (&*format!("timestamp={}", Hour::MAX.end_ms() - 1), Hour::MAX.end_ms() - 1),
        ] {
            assert_eq!(timestamp(Some(query)).map_err(|problem| problem.code), Ok(expected), "{query}");
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
            let problem = timestamp(Some(query)).unwrap_err();
            assert_eq!((problem.code, problem.field.as_deref()), (code, Some(field)), "{query}");
        }
        assert_eq!(timestamp(None).unwrap_err().code, Code::MissingField);
    }

    #[test]
    fn widens_a_range_to_whole_hours() {
        let hours =
            |query: &str| range(Some(query), 48).map(|range| (range.from.index(), range.to.index(), range.step));
        for (query, expected) in [
            ("from=0&to=1", (0, 1, Step::Hour)),
            ("from=3599999&to=3600001", (0, 2, Step::Hour)),
            ("to=7200000&from=3600000&step=hour", (1, 2, Step::Hour)),
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
            let problem = range(Some(query), 48).unwrap_err();
            assert_eq!((problem.code, problem.field.as_deref()), (code, Some(field)), "{query}");
        }
    }

    #[test]
    fn a_plus_in_a_path_is_a_plus() {
        assert_eq!(decoded("a+b%2bc", Plus::Plus).as_deref(), Some("a+b+c"));
        assert_eq!(decoded("a+b%2bc", Plus::Space).as_deref(), Some("a b+c"));
    }
}
