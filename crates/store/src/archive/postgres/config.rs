//! Settings of PostgreSQL.

use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use sqlx::postgres::PgConnectOptions;

use crate::SecretUrl;

/// Settings of the archive in PostgreSQL. `millrace/default.toml` documents each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:port/database`.
    pub url: SecretUrl,
    /// The schema of the tables; created when it is missing.
    pub schema: String,
    /// Most connections of this process.
    pub connections: u32,
    /// Longest wait for a free connection, in ms.
    pub acquire_timeout_ms: u64,
    /// Longest run of a statement, in ms.
    pub statement_timeout_ms: u64,
    /// Longest wait for a lock, in ms.
    pub lock_timeout_ms: u64,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self {
            url: SecretUrl::from("postgres://millrace@127.0.0.1:5432/millrace"),
            schema: "millrace".into(),
            connections: 8,
            acquire_timeout_ms: 3_000,
            statement_timeout_ms: 10_000,
            lock_timeout_ms: 5_000,
        }
    }
}

impl PostgresConfig {
    /// What is wrong, as (key below the section, what is allowed).
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut problems = Vec::new();
        let mut check = |ok: bool, key: &str, allowed: &str| {
            if !ok {
                problems.push((key.to_owned(), allowed.to_owned()));
            }
        };
        let url = !self.url.is_empty() && PgConnectOptions::from_str(self.url.expose()).is_ok();
        check(url, "url", "postgres://user:password@host:port/database");
        check(is_identifier(&self.schema), "schema", "1 to 63 of a-z 0-9 _, not a digit first");
        check((1..=1_000).contains(&self.connections), "connections", "1 to 1000");
        check((10..=60_000).contains(&self.acquire_timeout_ms), "acquire_timeout_ms", "10 to 60000");
        check((10..=600_000).contains(&self.statement_timeout_ms), "statement_timeout_ms", "10 to 600000");
        check((10..=600_000).contains(&self.lock_timeout_ms), "lock_timeout_ms", "10 to 600000");
        problems
    }

    pub(super) fn acquire_timeout(&self) -> Duration {
        Duration::from_millis(self.acquire_timeout_ms)
    }
}

/// An SQL identifier that means the same with and without quotes.
pub(super) fn is_identifier(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (1..=63).contains(&name.len()) && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_every_key_is_checked() {
        assert_eq!(PostgresConfig::default().validate(), []);
        let bad = PostgresConfig {
            url: SecretUrl::from("http://["),
            schema: "Robert'); --".into(),
            connections: 0,
            acquire_timeout_ms: 0,
            statement_timeout_ms: 0,
            lock_timeout_ms: 0,
        };
        let keys: Vec<String> = bad.validate().into_iter().map(|(key, _)| key).collect();
        let all = ["url", "schema", "connections", "acquire_timeout_ms", "statement_timeout_ms", "lock_timeout_ms"];
        assert_eq!(keys, all);
        for (name, good) in
            [("millrace", true), ("_a1", true), ("", false), ("1a", false), ("a-b", false), ("A", false)]
        {
            assert_eq!(is_identifier(name), good, "{name}");
        }
    }
}
