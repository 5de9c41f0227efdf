//! The settings of the query service, section `[query]`.

use std::net::SocketAddr;

use millrace_service::config::Span;
use millrace_service::http::HttpLimits;

/// Settings of the query service.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where reads are served.
    pub listen: SocketAddr,
    /// Where metrics and health are served.
    pub admin: SocketAddr,
    /// The least time between two reads of the current hour from its store.
    pub refresh: Span,
    /// The most age of the current hour's numbers while a store can be reached; older ones are marked stale.
    pub stale_after: Span,
    /// The most time one store may take to answer, before the next is asked.
    pub store_timeout: Span,
    /// Limits of the public listener.
    pub limits: HttpLimits,
}

impl Config {
    /// Every setting that is wrong: its key below `query`, and what is allowed.
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        if self.stale_after.0 < self.refresh.0 {
            wrong.push(("stale_after".into(), "at least query.refresh".into()));
        }
        wrong
    }
}
