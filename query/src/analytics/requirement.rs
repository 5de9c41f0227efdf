//! What a read requires of its counts: the events that they must contain, how long it waits for them, and whether it takes
//! counts without them.

use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName};
use millrace_base::Span;
use millrace_contracts::{Code, Refusal};

use crate::stores::position::MinPositions;

/// The header with the positions, which a request may have beside or instead of the parameter.
pub(crate) const MIN_POSITION: HeaderName = HeaderName::from_static("millrace-min-position");

pub(crate) const POSITION: &str = "min-position";
pub(crate) const WAIT: &str = "wait";
pub(crate) const STALE: &str = "stale";

const DEFAULT_WAIT: Duration = Duration::from_secs(1);
const MAX_WAIT: Duration = Duration::from_secs(10);

/// The value of `stale` that takes counts without the events.
pub(crate) const STALE_OK: &str = "ok";

/// The values of the parameters in a query string.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RequirementParams<'q> {
    pub(crate) position: Option<Cow<'q, str>>,
    pub(crate) wait: Option<Cow<'q, str>>,
    pub(crate) stale: Option<Cow<'q, str>>,
}

/// The events that the counts of a read must contain.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Requirement {
    pub(crate) positions: MinPositions,
    /// The longest wait for them.
    pub(crate) wait: Duration,
    /// Whether the read takes counts without them, marked stale, after that.
    pub(crate) stale_ok: bool,
}

impl Requirement {
    /// That of a request; `None` if it has no position. The topic of events has this full name and number of partitions.
    ///
    /// # Errors
    /// A refusal with the name of the parameter or header.
    pub(crate) fn of(
        terms: &RequirementParams<'_>,
        headers: &HeaderMap,
        (topic, partitions): (&str, u32),
    ) -> Result<Option<Self>, Refusal> {
        if *terms == RequirementParams::default() && !headers.contains_key(MIN_POSITION) {
            return Ok(None);
        }
        let wait = terms.wait.as_deref().map_or(Ok(DEFAULT_WAIT), wait)?;
        let stale_ok = match terms.stale.as_deref() {
            None => false,
            Some(STALE_OK) => true,
            Some(_) => return Err(Refusal::new(Code::InvalidField, "must be ok").field(STALE)),
        };
        let mut positions = MinPositions::default();
        let mut add = |text: &str, field: &'static str| {
            let added = positions.add(text, topic).and_then(|()| positions.within(partitions));
            added.map_err(|error| Refusal::new(Code::InvalidField, error.to_string()).field(field))
        };
        if let Some(text) = &terms.position {
            add(text, POSITION)?;
        }
        for value in headers.get_all(MIN_POSITION) {
            add(value.to_str().unwrap_or_default(), "millrace-min-position")?;
        }
        Ok((!positions.is_empty()).then_some(Self { positions, wait, stale_ok }))
    }
}

fn wait(text: &str) -> Result<Duration, Refusal> {
    let wait = Span::parse(text).map(|span| span.0).filter(|wait| *wait <= MAX_WAIT);
    wait.ok_or_else(|| Refusal::new(Code::InvalidField, "must be a duration in \"0ms\"..=\"10s\"").field(WAIT))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    const EVENTS: (&str, u32) = ("millrace.analytics.events", 3);

    fn terms<'q>(position: Option<&'q str>, wait: Option<&'q str>, stale: Option<&'q str>) -> RequirementParams<'q> {
        RequirementParams {
            position: position.map(Into::into),
            wait: wait.map(Into::into),
            stale: stale.map(Into::into),
        }
    }

    #[test]
    fn parameter_and_header_add_up() {
        let mut headers = HeaderMap::new();
        let none = Requirement::of(&terms(None, Some("2s"), Some("ok")), &headers, EVENTS);
        assert_eq!(none, Ok(None), "without a position there is nothing to wait for");
        headers.append(MIN_POSITION, HeaderValue::from_static("millrace.analytics.events/1@5"));
        headers.append(MIN_POSITION, HeaderValue::from_static("millrace.analytics.events/2@6"));
        let terms = terms(Some("millrace.analytics.events/0@4"), Some("1500ms"), Some("ok"));
        let found = Requirement::of(&terms, &headers, EVENTS).unwrap().unwrap();
        let mut positions = MinPositions::default();
        positions.add("millrace.analytics.events/0@4,1@5,2@6", EVENTS.0).unwrap();
        assert_eq!(found, Requirement { positions, wait: Duration::from_millis(1_500), stale_ok: true });
    }

    #[test]
    fn refusals_name_the_parameter() {
        let headers = HeaderMap::new();
        for (terms, field) in [
            (terms(Some("x"), None, None), "min-position"),
            (terms(Some("other/0@1"), None, None), "min-position"),
            (terms(Some("millrace.analytics.events/2@1,3@1"), None, None), "min-position"),
            (terms(None, Some("11s"), None), "wait"),
            (terms(None, Some("1"), None), "wait"),
            (terms(None, None, Some("yes")), "stale"),
        ] {
            let refusal = Requirement::of(&terms, &headers, EVENTS).unwrap_err();
            assert_eq!((refusal.code, refusal.field.as_deref()), (Code::InvalidField, Some(field)), "{terms:?}");
        }
        let mut headers = HeaderMap::new();
        for position in ["", "millrace.analytics.events/3@1"] {
            headers.insert(MIN_POSITION, HeaderValue::from_static(position));
            let refusal = Requirement::of(&RequirementParams::default(), &headers, EVENTS).unwrap_err();
            assert_eq!(refusal.field.as_deref(), Some("millrace-min-position"), "{position}");
        }
    }
}
