//! The settings of the query service, section `[query]`.

use std::net::SocketAddr;

use millrace_base::{Bounds, Size, Span, Violation};
use millrace_service::http::{HttpLimits, OtherSide};

/// Settings of the query service. `millrace/default.toml` documents each.
#[derive(Clone, Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where reads are served.
    pub listen: SocketAddr,
    /// Whether connections to `listen` begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Where metrics and health of the process are served.
    pub admin: SocketAddr,
    /// The URL of the write side as browsers reach it.
    pub command_url: OtherSide,
    /// Least time between two reads of the current hour from its store.
    pub refresh_interval: Span,
    /// Greatest age of the current hour's numbers while a store is available, and longest time for which an event in the log may
    /// be uncounted; beyond that, numbers are marked stale.
    pub stale_after: Span,
    /// Longest wait for one store before the next is read.
    pub store_timeout: Span,
    /// A store's circuit breaker opens when half of this many last reads failed.
    pub breaker_window: usize,
    /// How long an open circuit stays open before a trial read.
    pub breaker_reset_timeout: Span,
    /// Concurrent reads of the archive; more wait, for `store_timeout` at most.
    pub max_archive_reads: usize,
    /// TTL of the cache of archive answers, and of the first and last hour of the archive. What lacks a known event is not
    /// cached.
    pub archive_cache_ttl: Span,
    /// Least time between two refill requests for the same hour.
    pub refill_interval: Span,
    /// Most refill requests per second, over all hours: each costs the archive a read, Redis a write and the log a record,
    /// so that a scan of old hours must not cause one for each of its hours.
    pub max_refill_rate: u32,
    /// Most hours of a range.
    pub max_range_hours: u32,
    /// Memory of the encoders of compressed ranges and schemas; without it responses leave uncompressed.
    pub max_encoder_memory: Size,
    /// Most concurrent live streams.
    pub max_live_streams: usize,
    /// Least time between two events of the live stream.
    pub live_interval: Span,
    /// Longest time between two events of the live stream.
    pub live_heartbeat: Span,
    /// Admin listeners of other processes whose metrics the dashboard shows.
    pub watch: Vec<String>,
    /// Bounds of the public listener.
    pub limits: HttpLimits,
}

impl Config {
    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let (ms, minute, day) = (Span::from_millis, Span::from_secs(60), Span::from_secs(86_400));
        let mut bounds = Bounds::new();
        bounds
            .check(
                self.command_url.is_valid(),
                "command_url",
                "empty, or an http or https URL of at most 2048 characters",
            )
            .range("refresh_interval", &self.refresh_interval, &(ms(1)..=minute))
            .range("stale_after", &self.stale_after, &(self.refresh_interval.max(ms(1))..=day))
            .range("store_timeout", &self.store_timeout, &(ms(1)..=minute))
            .range("breaker_window", &self.breaker_window, &(1..=1_000))
            .range("breaker_reset_timeout", &self.breaker_reset_timeout, &(ms(1)..=day))
            .range("max_archive_reads", &self.max_archive_reads, &(1..=10_000))
            .range("archive_cache_ttl", &self.archive_cache_ttl, &(ms(1)..=minute))
            .range("refill_interval", &self.refill_interval, &(ms(1_000)..=day))
            .range("max_refill_rate", &self.max_refill_rate, &(1..=10_000))
            .range("max_range_hours", &self.max_range_hours, &(1..=100_000))
            .range("max_encoder_memory", &self.max_encoder_memory, &(Size::from_mib(5)..=Size::from_gib(1_024)))
            // In HTTP/2 a stream counts as an answer on its way, and other answers need permits, too.
            .check(
                self.max_live_streams < self.limits.max_in_flight,
                "max_live_streams",
                "below query.limits.max_in_flight",
            )
            .range("live_interval", &self.live_interval, &(self.refresh_interval.max(ms(1))..=day))
            .range("live_heartbeat", &self.live_heartbeat, &(self.live_interval.max(ms(1))..=day))
            .check(
                self.watch.len() <= 64 && self.watch.iter().all(|at| at.contains(':')),
                "watch",
                "a list of 0..=64 addresses host:port",
            )
            .section("limits", self.limits.validate());
        bounds.into_violations()
    }
}
