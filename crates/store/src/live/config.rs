//! Settings of Redis.

use std::time::Duration;

use serde::Deserialize;

use crate::SecretUrl;

/// Settings of the live hours in Redis. `millrace/default.toml` documents each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedisConfig {
    /// `redis://user:password@host:port/db`, or `rediss://` for TLS.
    pub url: SecretUrl,
    /// Hours before the current one that are answered from Redis.
    pub live_hours: u32,
    /// How long a key outlives the window, in ms: more than the clocks of any two machines differ.
    pub margin_ms: u64,
    /// How long an older hour stays once it was filled, in ms.
    pub older_ttl_ms: u64,
    /// Longest wait for a connection, in ms.
    pub connect_timeout_ms: u64,
    /// Longest wait for a reply, in ms.
    pub response_timeout_ms: u64,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: SecretUrl::from("redis://127.0.0.1:6379/"),
            live_hours: 24,
            margin_ms: 3_600_000,
            older_ttl_ms: 600_000,
            connect_timeout_ms: 1_000,
            response_timeout_ms: 1_000,
        }
    }
}

impl RedisConfig {
    /// What is wrong, as (key below the section, what is allowed).
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, key: &str, allowed: &str| {
            if !ok {
                problems.push((key.to_owned(), allowed.to_owned()));
            }
        };
        let url = redis::Client::open(self.url.expose()).is_ok();
        check(url, "url", "redis://user:password@host:port/db, or rediss://");
        check((1..=24 * 31).contains(&self.live_hours), "live_hours", "1 to 744");
        check((60_000..=604_800_000).contains(&self.margin_ms), "margin_ms", "60000 to 604800000");
        check((1_000..=86_400_000).contains(&self.older_ttl_ms), "older_ttl_ms", "1000 to 86400000");
        check((10..=60_000).contains(&self.connect_timeout_ms), "connect_timeout_ms", "10 to 60000");
        check((10..=60_000).contains(&self.response_timeout_ms), "response_timeout_ms", "10 to 60000");
        problems
    }

    pub(super) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(super) fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.response_timeout_ms)
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
            live_hours: 0,
            margin_ms: 0,
            older_ttl_ms: 0,
            connect_timeout_ms: 0,
            response_timeout_ms: 0,
        };
        let keys: Vec<String> = bad.validate().into_iter().map(|(key, _)| key).collect();
        let all = ["url", "live_hours", "margin_ms", "older_ttl_ms", "connect_timeout_ms", "response_timeout_ms"];
        assert_eq!(keys, all);
        assert!(toml::from_str::<RedisConfig>("live_hour = 3").is_err());
    }
}
