//! The durability that an answer waits for: the setting, and the weaker one that a request may prefer
//! (`Prefer: respond-async`, RFC 7240).

use http::{HeaderMap, HeaderValue, StatusCode};
use millrace_service::http::{PREFERENCE_APPLIED, RESPOND_ASYNC, prefers};
use serde::Deserialize;

use crate::Config;

/// The durability that an answer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// All in-sync replicas have the event: 204.
    Replicated,
    /// The partition's leader has it: 202. The embedded engine has one copy and syncs it before it answers all the same.
    Leader,
    /// The event is in the queue to the log: 202. Its outcome is counted later.
    Cached,
}

/// The durability of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) durability: Durability,
    /// The request preferred it.
    preferred: bool,
}

impl Terms {
    pub(crate) fn of(config: &Config, headers: &HeaderMap) -> Self {
        if config.allow_respond_async && prefers(headers, RESPOND_ASYNC) {
            Self { durability: Durability::Cached, preferred: true }
        } else {
            Self { durability: config.durability, preferred: false }
        }
    }

    /// The status of an accepted event.
    pub(crate) fn status(self) -> StatusCode {
        match self.durability {
            Durability::Replicated => StatusCode::NO_CONTENT,
            Durability::Leader | Durability::Cached => StatusCode::ACCEPTED,
        }
    }

    /// Confirms that the preference of the request was applied.
    pub(crate) fn add_header(self, headers: &mut HeaderMap) {
        if self.preferred {
            headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static(RESPOND_ASYNC));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_service::http::PREFER;

    #[test]
    fn a_preference_applies_only_where_the_operator_allows_it() {
        let mut headers = HeaderMap::new();
        headers.append(PREFER, HeaderValue::from_static("wait=1"));
        headers.append(PREFER, HeaderValue::from_static("respond-async"));
        for (allow_respond_async, durability, preferred) in
            [(false, Durability::Leader, false), (true, Durability::Cached, true)]
        {
            let config = Config { allow_respond_async, durability: Durability::Leader, ..Config::default() };
            assert_eq!(Terms::of(&config, &headers), Terms { durability, preferred });
            let configured = Terms { durability: Durability::Leader, preferred: false };
            assert_eq!(Terms::of(&config, &HeaderMap::new()), configured);
        }
    }
}
