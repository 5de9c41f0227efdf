//! The counts of an hour, rendered: every body and header a response may need, made once and cloned per request.
//!
//! The bodies are shorter than 256 bytes, which no content coding makes worth a moment: they go out as they are.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use jiff::Timestamp;
use millrace_contracts::Exactness;

use crate::Known;
use crate::accept::Format;
use crate::conditional::{self, Tag};

pub(crate) const AS_OF: HeaderName = HeaderName::from_static("millrace-as-of");
pub(crate) const TIER: HeaderName = HeaderName::from_static("millrace-tier");
pub(crate) const EXACTNESS: HeaderName = HeaderName::from_static("millrace-exactness");
pub(crate) const USERS_ERROR: HeaderName = HeaderName::from_static("millrace-unique-users-error");
pub(crate) const STALE: HeaderName = HeaderName::from_static("millrace-stale");

/// The relative standard error of approximate users: that of a sketch of 2^14 registers, 1.04 / sqrt(2^14). An hour is
/// exact in part, so it is no more.
pub(crate) const RELATIVE_ERROR: &str = "0.0081";

/// How long a client may keep an answer. Neither is for ever: a late event changes a past hour too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// A past hour: a minute.
    Minute,
    /// The current hour, or one to come: a moment.
    Moment,
}

impl Keep {
    pub(crate) const fn cache_control(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Minute => "max-age=60, must-revalidate",
            Self::Moment => "max-age=1, must-revalidate",
        })
    }
}

/// The counts of an hour in every representation.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    pub(crate) known: Known,
    keep: Keep,
    /// In the order of [`Format`].
    formats: [Rendered; 3],
}

#[derive(Debug, Clone)]
struct Rendered {
    body: Bytes,
    etag: Tag,
    headers: HeaderMap,
}

impl Page {
    /// `now_ms` is for the age of numbers that are stale.
    pub(crate) fn new(known: Known, keep: Keep, now_ms: i64) -> Self {
        let mut common = HeaderMap::with_capacity(12);
        common.insert(VARY, HeaderValue::from_static("Accept"));
        common.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        common.insert(CACHE_CONTROL, keep.cache_control());
        common.insert(TIER, HeaderValue::from_static(known.tier.as_str()));
        common.insert(EXACTNESS, HeaderValue::from_static(known.totals.exactness.as_str()));
        if known.totals.exactness == Exactness::Approximate {
            common.insert(USERS_ERROR, HeaderValue::from_static(RELATIVE_ERROR));
        }
        common.insert(AS_OF, text(&time(known.as_of_ms)));
        if known.stale {
            common.insert(STALE, HeaderValue::from_static("true"));
            common.insert(AGE, HeaderValue::from((now_ms - known.as_of_ms).max(0) / 1_000));
        }
        Self { known, keep, formats: Format::ALL.map(|format| Rendered::new(&known, format, common.clone())) }
    }

    /// The same numbers, marked as older than they should be.
    pub(crate) fn to_stale(&self, now_ms: i64) -> Self {
        Self::new(Known { stale: true, ..self.known }, self.keep, now_ms)
    }

    /// The JSON representation.
    pub(crate) fn json(&self) -> &Bytes {
        &self.formats[Format::Json as usize].body
    }

    /// The answer to a request with these headers: the body, or 304 where the client has it already.
    pub(crate) fn respond(&self, format: Format, request: &HeaderMap) -> Response {
        let rendered = &self.formats[format as usize];
        let held = conditional::held(request, &rendered.etag);
        let mut response = Response::new(if held.is_some() { Body::empty() } else { rendered.body.clone().into() });
        *response.headers_mut() = rendered.headers.clone();
        if let Some(etag) = held {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().insert(ETAG, etag);
            response.headers_mut().remove(CONTENT_TYPE);
        }
        response
    }
}

impl Rendered {
    fn new(known: &Known, format: Format, mut headers: HeaderMap) -> Self {
        let etag = tag(known, format);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        headers.insert(ETAG, etag.value.clone());
        Self { body: body(known, format).into(), etag, headers }
    }
}

fn body(known: &Known, format: Format) -> String {
    let totals = &known.totals;
    let (unique_users, clicks, impressions) = (totals.unique_users, totals.clicks, totals.impressions);
    match format {
        Format::Text => format!("unique_users,{unique_users}\nclicks,{clicks}\nimpressions,{impressions}\n"),
        Format::Csv => format!("unique_users,clicks,impressions\n{unique_users},{clicks},{impressions}\n"),
        Format::Json => {
            let mut body = format!(
                r#"{{"unique_users":{unique_users},"clicks":{clicks},"impressions":{impressions},"as_of":"{}","exactness":"{}""#,
                time(known.as_of_ms),
                totals.exactness.as_str(),
            );
            if totals.exactness == Exactness::Approximate {
                let _ = write!(body, r#","unique_users_error":{RELATIVE_ERROR}"#);
            }
            let _ = write!(body, r#","tier":"{}","stale":{}}}"#, known.tier.as_str(), known.stale);
            body
        }
    }
}

/// Numbers first, the same on every instance and after a restart. JSON says more than numbers, so its tag does too.
fn tag(known: &Known, format: Format) -> Tag {
    let totals = &known.totals;
    let exactness = match totals.exactness {
        Exactness::Exact => 'e',
        Exactness::Approximate => 'a',
    };
    let (unique_users, clicks, impressions) = (totals.unique_users, totals.clicks, totals.impressions);
    let mut value = format!("\"{}{exactness}-{unique_users:x}-{clicks:x}-{impressions:x}", format.tag());
    if format == Format::Json {
        value.push_str(if known.stale { "-stale." } else { "." });
        let numbers = value.len();
        let _ = write!(value, "{:x}{}\"", known.as_of_ms, known.tier.as_str());
        return Tag { value: text(&value), numbers };
    }
    value.push('"');
    Tag { value: text(&value), numbers: value.len() }
}

/// A time of ours as the headers and bodies write it.
pub(crate) fn time(ms: i64) -> String {
    Timestamp::from_millisecond(ms).map(|time| time.to_string()).unwrap_or_default()
}

pub(crate) fn text(visible: &str) -> HeaderValue {
    HeaderValue::from_str(visible).expect("digits, letters and punctuation are header text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tier;
    use millrace_store::Totals;

    fn known() -> Known {
        let totals = Totals { clicks: 2, impressions: 3, unique_users: 1, exactness: Exactness::Approximate };
        Known { totals, tier: Tier::Memory, as_of_ms: 1_500, stale: false }
    }

    #[test]
    fn the_longest_body_is_not_worth_a_coding() {
        let (clicks, impressions, unique_users) = (u64::MAX, u64::MAX, u64::MAX);
        let totals = Totals { clicks, impressions, unique_users, exactness: Exactness::Approximate };
        let page = Page::new(Known { totals, stale: true, ..known() }, Keep::Moment, 0);
        assert!(page.json().len() < 256, "{}", page.json().len());
    }

    #[test]
    fn json_tells_what_the_headers_tell() {
        let page = Page::new(known(), Keep::Moment, 2_600).to_stale(2_600);
        let json: serde_json::Value = serde_json::from_slice(page.json()).unwrap();
        let headers = &page.formats[1].headers;
        for (key, header) in [("as_of", AS_OF), ("exactness", EXACTNESS), ("tier", TIER)] {
            assert_eq!(json[key].as_str().unwrap(), headers[header]);
        }
        assert_eq!(json["unique_users_error"].to_string(), headers[USERS_ERROR]);
        assert_eq!((json["stale"].as_bool(), &headers[STALE]), (Some(true), &HeaderValue::from_static("true")));
        assert_eq!(headers[AGE], "1");
        assert_eq!(headers[AS_OF], "1970-01-01T00:00:01.5Z");
    }

    #[test]
    fn bodies_that_differ_have_tags_that_differ() {
        let others = [
            Known { as_of_ms: 1_501, ..known() },
            Known { tier: Tier::Redis, ..known() },
            Known { stale: true, ..known() },
            Known { totals: Totals { clicks: 3, ..known().totals }, ..known() },
            Known { totals: Totals { exactness: Exactness::Exact, ..known().totals }, ..known() },
        ];
        let page = Page::new(known(), Keep::Moment, 0);
        for other in others {
            let other = Page::new(other, Keep::Moment, 0);
            for (a, b) in page.formats.iter().zip(&other.formats) {
                assert!(a.body == b.body || a.etag.value != b.etag.value, "{:?}", other.known);
            }
        }
    }
}
