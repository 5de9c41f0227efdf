//! Settings of Redis.

use std::path::PathBuf;

use millrace_base::{Bounds, Span, Violation};
use serde::Deserialize;

use crate::SecretUrl;

/// Settings of the live hours in Redis. `millrace/default.toml` documents each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// `redis://user:password@host:port/db`, or `rediss://` for TLS.
    pub url: SecretUrl,
    /// The authorities that the certificate of a `rediss://` server is trusted by, in PEM; empty for those of the system.
    pub ca_file: PathBuf,
    /// Hours before the current one that Redis serves.
    pub live_hours: u32,
    /// How long a key outlives the window: longer than the clocks of any two machines differ.
    pub ttl_margin: Span,
    /// TTL of an older hour after a refill.
    pub refill_ttl: Span,
    /// Longest wait for a connection.
    pub connect_timeout: Span,
    /// Longest wait for a reply.
    pub response_timeout: Span,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: SecretUrl::from("redis://127.0.0.1:6379/"),
            ca_file: PathBuf::new(),
            live_hours: 24,
            ttl_margin: Span::from_secs(3_600),
            refill_ttl: Span::from_secs(600),
            connect_timeout: Span::from_secs(1),
            response_timeout: Span::from_secs(1),
        }
    }
}

impl RedisConfig {
    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let url = redis::Client::open(self.url.expose()).is_ok();
        let ca_file = self.ca_file.as_os_str().is_empty() || self.url.expose().starts_with("rediss://");
        let timeout = Span::from_millis(10)..=Span::from_secs(60);
        let mut bounds = Bounds::new();
        bounds
            .check(url, "url", "redis://user:password@host:port/db, or rediss:// for TLS")
            .check(ca_file, "ca_file", "empty unless redis.url begins with rediss://")
            .range("live_hours", &self.live_hours, &(1..=24 * 31))
            .range("ttl_margin", &self.ttl_margin, &(Span::from_secs(60)..=Span::from_secs(7 * 86_400)))
            .range("refill_ttl", &self.refill_ttl, &(Span::from_secs(1)..=Span::from_secs(86_400)))
            .range("connect_timeout", &self.connect_timeout, &timeout)
            .range("response_timeout", &self.response_timeout, &timeout);
        bounds.into_violations()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_every_key_is_checked() {
        assert_eq!(RedisConfig::default().validate(), []);
        let bad = RedisConfig {
            url: SecretUrl::from("http://x"),
            ca_file: "ca.pem".into(),
            live_hours: 0,
            ttl_margin: Span::from_millis(0),
            refill_ttl: Span::from_millis(0),
            connect_timeout: Span::from_millis(0),
            response_timeout: Span::from_millis(0),
        };
        let keys: Vec<String> = bad.validate().into_iter().map(|violation| violation.key).collect();
        let all = ["url", "ca_file", "live_hours", "ttl_margin", "refill_ttl", "connect_timeout", "response_timeout"];
        assert_eq!(keys, all);
        assert!(toml::from_str::<RedisConfig>("live_hour = 3").is_err());
    }
}
