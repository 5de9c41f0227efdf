//! What an answer waits for: the setting, and what a request may ask for instead (`Prefer: respond-async`, RFC 7240).

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;

use crate::Config;

pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");
pub(crate) const APPLIED: HeaderName = HeaderName::from_static("preference-applied");
pub(crate) const ASYNC: &str = "respond-async";

/// What an answer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// All replicas in sync have the event: 204.
    Replicated,
    /// The partition's leader has it: 202. The embedded engine has one copy and syncs it before it answers all the same.
    Leader,
    /// It is in the queue to the log: 202. What becomes of it is counted.
    Cached,
}

/// What the answer to one request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) durability: Durability,
    /// The request asked for it.
    asked: bool,
}

impl Terms {
    pub(crate) fn of(config: &Config, headers: &HeaderMap) -> Self {
        if config.allow_respond_async && headers.get_all(PREFER).iter().any(|line| prefers_async(line.as_bytes())) {
            Self { durability: Durability::Cached, asked: true }
        } else {
            Self { durability: config.durability, asked: false }
        }
    }

    /// The status of an accepted event.
    pub(crate) fn status(self) -> StatusCode {
        match self.durability {
            Durability::Replicated => StatusCode::NO_CONTENT,
            Durability::Leader | Durability::Cached => StatusCode::ACCEPTED,
        }
    }

    /// Says that the request got what it asked for.
    pub(crate) fn add_header(self, headers: &mut HeaderMap) {
        if self.asked {
            headers.insert(APPLIED, HeaderValue::from_static(ASYNC));
        }
    }
}

/// Whether one of the preferences of a line is `respond-async`. Commas in quotes part nothing.
fn prefers_async(line: &[u8]) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    let mut preferences = line.split(|&byte| {
        let plain = !escaped;
        escaped = plain && quoted && byte == b'\\';
        quoted ^= plain && byte == b'"';
        byte == b',' && !quoted
    });
    preferences.any(|preference| {
        let name = preference.split(|&byte| byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(ASYNC.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preferences_are_read_as_the_rfc_has_them() {
        for line in [
            "respond-async",
            "Respond-Async",
            "wait=10, respond-async",
            "respond-async; x=1",
            "a=\"b,\" ,respond-async",
        ] {
            assert!(prefers_async(line.as_bytes()), "{line}");
        }
        for line in [
            "",
            "respond-asynchronously",
            "wait=10",
            "a=\"x, respond-async\"",
            "a=\"\\\", respond-async,\"",
            "x;respond-async",
        ] {
            assert!(!prefers_async(line.as_bytes()), "{line}");
        }
    }

    #[test]
    fn a_request_gets_it_only_where_the_operator_allows_it() {
        let mut headers = HeaderMap::new();
        headers.append(PREFER, HeaderValue::from_static("wait=1"));
        headers.append(PREFER, HeaderValue::from_static("respond-async"));
        for (allow_respond_async, durability, asked) in
            [(false, Durability::Leader, false), (true, Durability::Cached, true)]
        {
            let config = Config { allow_respond_async, durability: Durability::Leader, ..Config::default() };
            assert_eq!(Terms::of(&config, &headers), Terms { durability, asked });
            let unasked = Terms { durability: Durability::Leader, asked: false };
            assert_eq!(Terms::of(&config, &HeaderMap::new()), unasked);
        }
    }
}
