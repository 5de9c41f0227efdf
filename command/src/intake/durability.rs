//! What an answer waits for: the setting, and what a request may ask for instead (`Prefer: respond-async`, RFC 7240).

use http::{HeaderMap, HeaderValue, StatusCode};
use millrace_service::http::{PREFERENCE_APPLIED, RESPOND_ASYNC, prefers};
use serde::Deserialize;

use crate::Config;

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
        if config.allow_respond_async && prefers(headers, RESPOND_ASYNC) {
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
            headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static(RESPOND_ASYNC));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_service::http::PREFER;

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
