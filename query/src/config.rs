//! The settings of the query service, section `[query]`.

use std::net::SocketAddr;
use std::time::Duration;

use millrace_service::config::Span;
use millrace_service::http::HttpLimits;

/// Settings of the query service. `millrace/default.toml` documents each.
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
    /// Results of a store's reads that decide whether it is left alone: when half of the last ones failed.
    pub breaker_calls: usize,
    /// How long a store that fails is left alone before it is asked again.
    pub breaker_pause: Span,
    /// Reads of the archive under way at the same time; more wait, for `store_timeout` at most.
    pub archive_reads: usize,
    /// How long the archive's answer for an hour, and its first and last hour, are used again.
    pub archive_for: Span,
    /// The least time between two requests that Redis be filled with the same hour again.
    pub refill_every: Span,
    /// Most requests a second that Redis be filled, of all hours: each costs the archive a read, Redis a write and the log a
    /// record, so a scan of old hours must not bring as many as it has hours.
    pub refill_rate: u32,
    /// Most hours of a range.
    pub range_hours: u32,
    /// Most live streams at the same time.
    pub live_streams: usize,
    /// The least time between two events of the live stream.
    pub live_every: Span,
    /// The most time between two events of the live stream.
    pub live_heartbeat: Span,
    /// Admin listeners of other processes whose metrics the page shows.
    pub watch: Vec<String>,
    /// Limits of the public listener.
    pub limits: HttpLimits,
}

impl Config {
    /// Every setting that is wrong: its key below `query`, and what is allowed.
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        let mut check = |good: bool, key: &str, allowed: &str| {
            if !good {
                wrong.push((key.to_owned(), allowed.to_owned()));
            }
        };
        let (second, minute) = (Duration::from_secs(1), Duration::from_mins(1));
        check(self.stale_after.0 >= self.refresh.0, "stale_after", "at least query.refresh");
        check((1..=1_000).contains(&self.breaker_calls), "breaker_calls", "1 to 1000");
        check((1..=10_000).contains(&self.archive_reads), "archive_reads", "1 to 10000");
        check(self.archive_for.0 <= minute, "archive_for", "at most 1m");
        check(self.refill_every.0 >= second, "refill_every", "at least 1s");
        check((1..=10_000).contains(&self.refill_rate), "refill_rate", "1 to 10000");
        check((1..=100_000).contains(&self.range_hours), "range_hours", "1 to 100000");
        // Streams hold their place among the requests under way; the others need some, too.
        check(self.live_streams < self.limits.in_flight, "live_streams", "less than query.limits.in_flight");
        check(self.live_every.0 >= self.refresh.0, "live_every", "at least query.refresh");
        check(
            self.watch.len() <= 64 && self.watch.iter().all(|at| at.contains(':')),
            "watch",
            "host:port, at most 64 of them",
        );
        check(self.live_heartbeat.0 >= self.live_every.0, "live_heartbeat", "at least query.live_every");
        wrong
    }
}
