//! The response to a read of an hour, rendered once: bodies and headers of every representation, cloned per request.
//!
//! Bodies are shorter than 320 bytes, too short for a content coding to pay, so they are sent uncompressed.

use std::fmt::Write as _;

use axum::body::Body;
use axum::http::header::{AGE, CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use millrace_contracts::Exactness;
use millrace_service::http::EntityTag;

use super::body::{self, HourBody, USERS_ERROR};
use super::format::Format;
use crate::stores::port::HourCounts;

pub(crate) const AS_OF: HeaderName = HeaderName::from_static("millrace-as-of");
pub(crate) const TIER: HeaderName = HeaderName::from_static("millrace-tier");
pub(crate) const EXACTNESS: HeaderName = HeaderName::from_static("millrace-exactness");
pub(crate) const UNIQUE_USERS_ERROR: HeaderName = HeaderName::from_static("millrace-unique-users-error");
pub(crate) const STALE: HeaderName = HeaderName::from_static("millrace-stale");
pub(crate) const COUNTED_UP_TO: HeaderName = HeaderName::from_static("millrace-counted-up-to");

/// What a response depends on: the representation, and the events that its counts must contain.
pub(crate) const VARIES: &str = "Accept, Millrace-Min-Position";

/// How long a client may cache a response. A past hour may still change: late events count, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MaxAge {
    /// Of a past hour.
    Minute,
    /// Of the current hour or a future one.
    Second,
}

impl MaxAge {
    pub(crate) const fn cache_control(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Minute => "max-age=60, must-revalidate",
            Self::Second => "max-age=1, must-revalidate",
        })
    }
}

/// The response with the counts of an hour, in every representation.
#[derive(Debug, Clone)]
pub(crate) struct HourResponse {
    pub(crate) counts: HourCounts,
    max_age: MaxAge,
    /// In the order of [`Format`].
    representations: [Representation; 3],
}

#[derive(Debug, Clone)]
struct Representation {
    body: Bytes,
    etag: EntityTag,
    headers: HeaderMap,
}

impl HourResponse {
    /// Renders every representation. `now_ms`, in ms since the epoch, is for the `Age` of stale counts.
    pub(crate) fn new(counts: HourCounts, max_age: MaxAge, now_ms: i64) -> Self {
        let mut common = HeaderMap::with_capacity(13);
        common.insert(VARY, HeaderValue::from_static(VARIES));
        common.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        common.insert(CACHE_CONTROL, max_age.cache_control());
        common.insert(TIER, HeaderValue::from_static(counts.tier.as_str()));
        common.insert(EXACTNESS, HeaderValue::from_static(counts.totals.exactness.as_str()));
        if counts.totals.exactness == Exactness::Approximate {
            common.insert(UNIQUE_USERS_ERROR, text(&USERS_ERROR));
        }
        common.insert(AS_OF, text(&body::time(counts.as_of_ms)));
        if let Some(up_to_ms) = counts.coverage.up_to_ms {
            common.insert(COUNTED_UP_TO, text(&body::time(up_to_ms)));
        }
        if counts.stale {
            common.insert(STALE, HeaderValue::from_static("true"));
            common.insert(AGE, HeaderValue::from((now_ms - counts.as_of_ms).max(0) / 1_000));
        }
        Self {
            counts,
            max_age,
            representations: Format::ALL.map(|format| Representation::new(&counts, format, common.clone())),
        }
    }

    /// The same counts, marked stale.
    pub(crate) fn to_stale(&self, now_ms: i64) -> Self {
        Self::new(HourCounts { stale: true, ..self.counts }, self.max_age, now_ms)
    }

    /// The response to a request with these headers: the representation, or 304 if the client has it.
    pub(crate) fn respond(&self, format: Format, request: &HeaderMap) -> Response {
        let representation = &self.representations[format as usize];
        let cached = representation.etag.matching(request);
        let mut response =
            Response::new(if cached.is_some() { Body::empty() } else { representation.body.clone().into() });
        *response.headers_mut() = representation.headers.clone();
        if let Some(etag) = cached {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().insert(ETAG, etag);
            response.headers_mut().remove(CONTENT_TYPE);
        }
        response
    }
}

impl Representation {
    fn new(counts: &HourCounts, format: Format, mut headers: HeaderMap) -> Self {
        let etag = tag(counts, format);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        headers.insert(ETAG, etag.value.clone());
        Self { body: body(counts, format).into(), etag, headers }
    }
}

fn body(counts: &HourCounts, format: Format) -> Vec<u8> {
    let totals = &counts.totals;
    let (unique_users, clicks, impressions) = (totals.unique_users, totals.clicks, totals.impressions);
    match format {
        Format::Text => format!("unique_users,{unique_users}\nclicks,{clicks}\nimpressions,{impressions}\n").into(),
        Format::Csv => format!("unique_users,clicks,impressions\n{unique_users},{clicks},{impressions}\n").into(),
        Format::Json => {
            let mut json = body::json(&HourBody::new(counts));
            json.push(b'\n');
            json
        }
    }
}

/// The entity tag: the counts first, equal on every instance and after a restart. JSON also has freshness, so its tag has
/// it after the counts.
fn tag(counts: &HourCounts, format: Format) -> EntityTag {
    let totals = &counts.totals;
    let exactness = match totals.exactness {
        Exactness::Exact => 'e',
        Exactness::Approximate => 'a',
    };
    let (unique_users, clicks, impressions) = (totals.unique_users, totals.clicks, totals.impressions);
    let mut value = format!("\"{}{exactness}-{unique_users:x}-{clicks:x}-{impressions:x}", format.tag());
    if format == Format::Json {
        value.push_str(if counts.stale { "-stale." } else { "." });
        let content_len = value.len();
        let _ = write!(value, "{:x}{}", counts.as_of_ms, counts.tier.as_str());
        if let Some(up_to_ms) = counts.coverage.up_to_ms {
            let _ = write!(value, ".{up_to_ms:x}");
        }
        value.push('"');
        return EntityTag { value: text(&value), content_len };
    }
    value.push('"');
    EntityTag { value: text(&value), content_len: value.len() }
}

/// A header value of printable ASCII.
pub(crate) fn text(value: &impl ToString) -> HeaderValue {
    HeaderValue::try_from(value.to_string()).expect("digits, letters and punctuation are header text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::port::Tier;
    use crate::stores::position::Coverage;
    use millrace_store::Totals;

    fn counts() -> HourCounts {
        let totals = Totals { clicks: 2, impressions: 3, unique_users: 1, exactness: Exactness::Approximate };
        let coverage = Coverage { up_to_ms: Some(1_250), log_end: None };
        HourCounts { totals, tier: Tier::Memory, as_of_ms: 1_500, stale: false, coverage }
    }

    #[test]
    fn the_longest_body_is_too_short_to_compress() {
        let (clicks, impressions, unique_users) = (u64::MAX, u64::MAX, u64::MAX);
        let totals = Totals { clicks, impressions, unique_users, exactness: Exactness::Approximate };
        let ms = 1_795_249_800_123;
        let coverage = Coverage { up_to_ms: Some(ms), log_end: None };
        let counts = HourCounts { totals, stale: true, tier: Tier::Archive, as_of_ms: ms, coverage };
        let response = HourResponse::new(counts, MaxAge::Second, 0);
        let body = &response.representations[Format::Json as usize].body;
        assert!(body.len() < 320, "{}", body.len());
    }

    #[test]
    fn json_has_what_the_headers_have() {
        let response = HourResponse::new(counts(), MaxAge::Second, 2_600).to_stale(2_600);
        let json: serde_json::Value =
            serde_json::from_slice(&response.representations[Format::Json as usize].body).unwrap();
        let headers = &response.representations[1].headers;
        for (key, header) in
            [("as_of", AS_OF), ("counted_up_to", COUNTED_UP_TO), ("exactness", EXACTNESS), ("tier", TIER)]
        {
            assert_eq!(json[key].as_str().unwrap(), headers[header]);
        }
        assert_eq!(json["unique_users_error"].to_string(), headers[UNIQUE_USERS_ERROR]);
        assert_eq!((json["stale"].as_bool(), &headers[STALE]), (Some(true), &HeaderValue::from_static("true")));
        assert_eq!(headers[AGE], "1");
        assert_eq!(headers[AS_OF], "1970-01-01T00:00:01.5Z");
    }

    #[test]
    fn different_bodies_have_different_tags() {
        let others = [
            HourCounts { as_of_ms: 1_501, ..counts() },
            HourCounts { coverage: Coverage::default(), ..counts() },
            HourCounts { tier: Tier::Redis, ..counts() },
            HourCounts { stale: true, ..counts() },
            HourCounts { totals: Totals { clicks: 3, ..counts().totals }, ..counts() },
            HourCounts { totals: Totals { exactness: Exactness::Exact, ..counts().totals }, ..counts() },
        ];
        let response = HourResponse::new(counts(), MaxAge::Second, 0);
        for other in others {
            let other = HourResponse::new(other, MaxAge::Second, 0);
            for (a, b) in response.representations.iter().zip(&other.representations) {
                assert!(a.body == b.body || a.etag.value != b.etag.value, "{:?}", other.counts);
            }
        }
    }
}
