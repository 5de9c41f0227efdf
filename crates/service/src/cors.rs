//! Requests from pages of other origins (CORS).

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use http::header::{
    ACCEPT, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, ORIGIN, RETRY_AFTER, VARY,
    WWW_AUTHENTICATE,
};
use http::{HeaderName, HeaderValue, Method, Uri};
use millrace_base::{Bounds, Violation};
use serde::Deserialize;
use tower::{Layer as _, ServiceExt as _};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::auth::{RATE_LIMIT_HEADERS, routes};
use crate::http::{IDEMPOTENCY_KEY, PREFER, PREFERENCE_APPLIED, REQUEST_ID};

/// How long a browser may remember the answer to a preflight.
const MAX_AGE: Duration = Duration::from_mins(10);
/// Most origins: each is compared with that of a request.
const MAX_ORIGINS: usize = 64;
/// The header of an accepted event's position.
const POSITION: HeaderName = HeaderName::from_static("millrace-position");
/// Up to when the counts of a response hold, and the positions of events that they must contain.
const COUNTED_UP_TO: HeaderName = HeaderName::from_static("millrace-counted-up-to");
const MIN_POSITION: HeaderName = HeaderName::from_static("millrace-min-position");
/// Resumes a live stream.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Settings of pages of other origins, section `[cors]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CorsConfig {
    /// The origins whose pages may record events and read counts.
    pub allow_origins: Vec<String>,
}

impl CorsConfig {
    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let mut bounds = Bounds::new();
        let origins = &self.allow_origins;
        bounds.check(
            origins.len() <= MAX_ORIGINS && origins.iter().all(|origin| is_origin(origin)),
            "allow_origins",
            format_args!(
                "0..={MAX_ORIGINS} origins as browsers write them, such as \"https://shop.example\", without a path"
            ),
        );
        bounds.into_violations()
    }
}

/// Whether a text is an origin as browsers write it: scheme and host in lower case, and a port that is not the scheme's own.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else { return false };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return false };
    let own_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return false,
    };
    let (host, port) = (authority.host(), authority.port_u16());
    let is_host = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.' | b':' | b'[' | b']')
    };
    let port = match port {
        Some(port) if port == own_port => return false,
        Some(port) => format!(":{port}"),
        None => String::new(),
    };
    !host.is_empty() && host.bytes().all(is_host) && text == format!("{scheme}://{host}{port}")
}

/// The origins whose pages may use the routes of events and counts. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Cors(Option<Arc<Allowed>>);

#[derive(Debug)]
struct Allowed {
    origins: Vec<HeaderValue>,
    layer: CorsLayer,
}

impl Cors {
    /// The origins of the settings.
    pub fn new(config: &CorsConfig) -> Self {
        let origins: Vec<_> =
            config.allow_origins.iter().filter_map(|origin| HeaderValue::try_from(origin).ok()).collect();
        if origins.is_empty() {
            return Self(None);
        }
        let [(rate_limit, _), (rate_limit_policy, _)] = RATE_LIMIT_HEADERS;
        // Never with credentials: a browser must not add a password that it has.
        let layer = CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins.clone()))
            .allow_methods([Method::GET, Method::HEAD, Method::POST])
            .allow_headers([
                ACCEPT,
                AUTHORIZATION,
                CONTENT_ENCODING,
                CONTENT_TYPE,
                IDEMPOTENCY_KEY,
                IF_NONE_MATCH,
                LAST_EVENT_ID,
                MIN_POSITION,
                PREFER,
            ])
            .expose_headers([
                COUNTED_UP_TO,
                ETAG,
                POSITION,
                PREFERENCE_APPLIED,
                rate_limit,
                rate_limit_policy,
                REQUEST_ID,
                RETRY_AFTER,
                WWW_AUTHENTICATE,
            ])
            .max_age(MAX_AGE)
            .vary([ORIGIN]);
        Self(Some(Arc::new(Allowed { origins, layer })))
    }

    /// Answers preflights before `router` does, and adds the headers of pages of other origins to its responses.
    pub(crate) fn around(&self, router: Router) -> Router {
        match &self.0 {
            None => router,
            Some(allowed) => router.layer(middleware::from_fn_with_state(allowed.clone(), pass)),
        }
    }
}

async fn pass(State(allowed): State<Arc<Allowed>>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    if !path.is_some_and(|path| routes::is_for_pages(path.as_str())) {
        return next.run(request).await;
    }
    if request.headers().get(ORIGIN).is_some_and(|origin| allowed.origins.contains(origin)) {
        let response: Result<Response, Infallible> = allowed.layer.layer(next).oneshot(request).await;
        return response.unwrap_or_else(|never| match never {});
    }
    let mut response = next.run(request).await;
    // A cache must not serve it to a page.
    response.headers_mut().append(VARY, HeaderValue::from_static("origin"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_those_that_browsers_write() {
        for good in ["https://shop.example", "http://localhost:3000", "https://[::1]:8443", "https://1.2.3.4"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "*",
            "null",
            "",
            "shop.example",
            "https://",
            "https://shop.example/",
            "https://shop.example/a",
            "https://Shop.example",
            "https://shop.example:443",
            "http://shop.example:80",
            "https://u@shop.example",
            "ftp://shop.example",
            "https://*.example",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
