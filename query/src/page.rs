//! The counts of an hour, rendered: every body and header a response may need, made once and cloned per request.

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use jiff::Timestamp;
use millrace_contracts::Exactness;
use millrace_store::Totals;

use crate::Tier;
use crate::accept::Format;
use crate::conditional;

const TIER: HeaderName = HeaderName::from_static("millrace-tier");
const EXACTNESS: HeaderName = HeaderName::from_static("millrace-exactness");
const AS_OF: HeaderName = HeaderName::from_static("millrace-as-of");
const STALE: HeaderName = HeaderName::from_static("millrace-stale");

/// How long a client may keep an answer. Neither is for ever: a late event changes a past hour too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// A past hour: a minute.
    Minute,
    /// The current hour, or one to come: a moment.
    Moment,
}

/// The counts of an hour in every representation.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    tier: Tier,
    stale: bool,
    /// In the order of [`Format`].
    formats: [Rendered; 3],
}

#[derive(Debug, Clone)]
struct Rendered {
    body: Bytes,
    etag: HeaderValue,
    headers: HeaderMap,
}

impl Page {
    /// `read_ms` is when the numbers were read.
    pub(crate) fn new(totals: &Totals, tier: Tier, keep: Keep, read_ms: i64) -> Self {
        let as_of = Timestamp::from_millisecond(read_ms).map(|time| time.to_string()).unwrap_or_default();
        let mut common = HeaderMap::with_capacity(9);
        common.insert(VARY, HeaderValue::from_static("Accept"));
        common.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        common.insert(
            CACHE_CONTROL,
            HeaderValue::from_static(match keep {
                Keep::Minute => "max-age=60, must-revalidate",
                Keep::Moment => "max-age=1, must-revalidate",
            }),
        );
        common.insert(TIER, HeaderValue::from_static(tier.as_str()));
        common.insert(EXACTNESS, HeaderValue::from_static(totals.exactness.as_str()));
        common.insert(AS_OF, text(&as_of));
        Self { tier, stale: false, formats: Format::ALL.map(|format| Rendered::new(totals, format, common.clone())) }
    }

    /// The same numbers, marked as older than they should be.
    pub(crate) fn into_stale(mut self) -> Self {
        self.stale = true;
        for rendered in &mut self.formats {
            rendered.headers.insert(STALE, HeaderValue::from_static("true"));
        }
        self
    }

    pub(crate) fn tier(&self) -> Tier {
        self.tier
    }

    pub(crate) fn is_stale(&self) -> bool {
        self.stale
    }

    /// The answer to a request with these headers: the body, or 304 where the client has it already.
    pub(crate) fn respond(&self, format: Format, request: &HeaderMap) -> Response {
        let rendered = &self.formats[format as usize];
        let mut response = if conditional::is_held(request, &rendered.etag) {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response
        } else {
            Response::new(Body::from(rendered.body.clone()))
        };
        let not_modified = response.status() == StatusCode::NOT_MODIFIED;
        *response.headers_mut() = rendered.headers.clone();
        if not_modified {
            response.headers_mut().remove(CONTENT_TYPE);
        }
        response
    }
}

impl Rendered {
    fn new(totals: &Totals, format: Format, mut headers: HeaderMap) -> Self {
        let Totals { unique_users, clicks, impressions, exactness } = *totals;
        let body = match format {
            Format::Text => format!("unique_users,{unique_users}\nclicks,{clicks}\nimpressions,{impressions}\n"),
            Format::Json => {
                format!(r#"{{"unique_users":{unique_users},"clicks":{clicks},"impressions":{impressions}}}"#)
            }
            Format::Csv => format!("unique_users,clicks,impressions\n{unique_users},{clicks},{impressions}\n"),
        };
        // Made of the numbers alone, so that every instance, and each after a restart, says the same.
        let etag = text(&format!(
            "\"{}{}-{unique_users:x}-{clicks:x}-{impressions:x}\"",
            format.tag(),
            match exactness {
                Exactness::Exact => "e",
                Exactness::Approximate => "a",
            }
        ));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        headers.insert(ETAG, etag.clone());
        Self { body: body.into(), etag, headers }
    }
}

fn text(visible: &str) -> HeaderValue {
    HeaderValue::from_str(visible).expect("digits, letters and punctuation are header text")
}
