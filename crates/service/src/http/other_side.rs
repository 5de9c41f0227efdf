//! The way from the write side to the read side and back, for browsers: the two are different origins.

use ::http::header::{CACHE_CONTROL, LOCATION};
use ::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use millrace_contracts::{Code, Refusal};
use serde::Deserialize;

use super::Problem;

const MAX_BYTES: usize = 2_048;

/// The URL under which browsers reach the other side; empty if nobody has set it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct OtherSide(pub String);

impl OtherSide {
    /// Whether it is empty, or http or https with a host and, at most, a path.
    pub fn is_valid(&self) -> bool {
        let host = ["http://", "https://"].iter().find_map(|scheme| self.0.strip_prefix(scheme));
        let graphic = |byte: u8| byte.is_ascii_graphic() && byte != b'?' && byte != b'#';
        self.0.is_empty()
            || (self.0.len() <= MAX_BYTES
                && self.0.bytes().all(graphic)
                && host.is_some_and(|host| !host.is_empty() && !host.starts_with('/')))
    }

    /// The redirect to a path of the other side; `missing` is the detail of the 404 without a URL.
    pub fn redirect(&self, path: &str, missing: &'static str) -> Response {
        let missing = || Problem::from(Refusal::new(Code::NotFound, missing)).into_response();
        if self.0.is_empty() {
            return missing();
        }
        let Ok(location) = HeaderValue::try_from(format!("{}{path}", self.0.trim_end_matches('/'))) else {
            return missing();
        };
        let headers = [(LOCATION, location), (CACHE_CONTROL, HeaderValue::from_static("no-store"))];
        (StatusCode::TEMPORARY_REDIRECT, headers).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_one_of_a_browser() {
        let valid = |url: &str| OtherSide(url.to_owned()).is_valid();
        for good in ["", "http://127.0.0.1:8081", "https://millrace.example/write/"] {
            assert!(valid(good), "{good}");
        }
        for bad in ["127.0.0.1:8081", "http://", "http:///topics", "javascript:alert(1)", "http://a b", "http://a?b"] {
            assert!(!valid(bad), "{bad}");
        }
        assert!(!valid(&format!("http://{}", "a".repeat(MAX_BYTES))));
    }

    #[test]
    fn redirects_to_the_path_or_names_the_setting() {
        let to = OtherSide("http://here:1/".to_owned()).redirect("/topics", "query.command_url");
        assert_eq!(
            (to.status(), to.headers()[LOCATION].to_str().unwrap()),
            (StatusCode::TEMPORARY_REDIRECT, "http://here:1/topics")
        );
        assert_eq!(OtherSide::default().redirect("/", "command.query_url").status(), StatusCode::NOT_FOUND);
    }
}
