//! Settings of PostgreSQL.

use std::str::FromStr;

use millrace_base::{Bounds, Span, Violation};
use serde::Deserialize;
use sqlx::postgres::PgConnectOptions;

use crate::SecretUrl;

/// The parameters of a URL that have an effect, besides `options[…]`. The library ignores others: a misspelled `sslmode` would
/// leave the server unverified, and its warning has the value, which may be a password.
const PARAMETERS: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// Settings of PostgreSQL. `millrace/default.toml` documents each.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PostgresConfig {
    /// `postgres://user:password@host:port/database`.
    pub url: SecretUrl,
    /// The schema of the tables; created when it is missing.
    pub schema: String,
    /// Most connections of each read model of this process: the archive, and the index of messages.
    pub max_connections: u32,
    /// Longest wait for a free connection.
    pub acquire_timeout: Span,
    /// Longest run of a statement.
    pub statement_timeout: Span,
    /// Longest wait for a lock.
    pub lock_timeout: Span,
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self {
            url: SecretUrl::from("postgres://millrace@127.0.0.1:5432/millrace"),
            schema: "millrace".into(),
            max_connections: 8,
            acquire_timeout: Span::from_secs(3),
            statement_timeout: Span::from_secs(10),
            lock_timeout: Span::from_secs(5),
        }
    }
}

impl PostgresConfig {
    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let text = self.url.expose();
        let url = !self.url.is_empty() && has_known_parameters(text) && PgConnectOptions::from_str(text).is_ok();
        let least = Span::from_millis(10);
        let mut bounds = Bounds::new();
        bounds
            .check(url, "url", "postgres://user:password@host:port/database, perhaps with ?sslmode=…&sslrootcert=…")
            .check(
                uses_its_authorities(text),
                "url",
                "with sslmode=verify-full (or verify-ca) if it has sslrootcert: any other mode verifies nothing",
            )
            .check(is_identifier(&self.schema), "schema", "1..=63 characters of a-z 0-9 _, the first not a digit")
            .range("max_connections", &self.max_connections, &(1..=1_000))
            .range("acquire_timeout", &self.acquire_timeout, &(least..=Span::from_secs(60)))
            .range("statement_timeout", &self.statement_timeout, &(least..=Span::from_secs(600)))
            .range("lock_timeout", &self.lock_timeout, &(least..=Span::from_secs(600)));
        bounds.into_violations()
    }
}

/// The parameters of a URL, as they are written.
fn parameters(url: &str) -> impl Iterator<Item = (&str, &str)> {
    let before_fragment = url.split('#').next().unwrap_or_default();
    let query = before_fragment.split_once('?').map_or("", |(_, query)| query);
    query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")))
}

fn has_known_parameters(url: &str) -> bool {
    let mut names = parameters(url).map(|(name, _)| name).filter(|name| !name.is_empty());
    let is_option = |name: &str| name.starts_with("options[") && name.ends_with(']');
    names.all(|name| PARAMETERS.contains(&name) || is_option(name))
}

/// Whether the authorities that the URL names are used, if it names any: the library reads them, and verifies nothing without
/// a mode that says so. Of several modes the last one counts.
fn uses_its_authorities(url: &str) -> bool {
    let names_some = parameters(url).any(|(name, _)| ["sslrootcert", "ssl-root-cert", "ssl-ca"].contains(&name));
    let mode = parameters(url).filter(|(name, _)| ["sslmode", "ssl-mode"].contains(name)).last();
    let verifies = |mode: &str| ["verify-ca", "verify-full"].iter().any(|known| mode.eq_ignore_ascii_case(known));
    !names_some || mode.is_some_and(|(_, mode)| verifies(mode))
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
            max_connections: 0,
            acquire_timeout: Span::from_millis(0),
            statement_timeout: Span::from_millis(0),
            lock_timeout: Span::from_millis(0),
        };
        let keys: Vec<String> = bad.validate().into_iter().map(|violation| violation.key).collect();
        let all = ["url", "schema", "max_connections", "acquire_timeout", "statement_timeout", "lock_timeout"];
        assert_eq!(keys, all);
        for (name, good) in
            [("millrace", true), ("_a1", true), ("", false), ("1a", false), ("a-b", false), ("A", false)]
        {
            assert_eq!(is_identifier(name), good, "{name}");
        }
    }

    #[test]
    fn parameters_of_the_url_have_an_effect_or_are_refused() {
        for (parameters, good) in [
            ("", true),
            ("?", true),
            ("?sslmode=verify-full&sslrootcert=/ca.pem", true),
            ("?options[search_path]=x&application_name=a%26b", true),
            ("?sslmode=verify-ca&ssl-ca=/ca.pem", true),
            ("?sslmode=require", true),
            ("?sslrootcert=/ca.pem", false),
            ("?sslmode=require&sslrootcert=/ca.pem", false),
            ("?sslmode=verify-full&sslrootcert=/ca.pem&sslmode=prefer", false),
            ("?options[search_path=x", false),
            ("?sslmod=verify-full", false),
            ("?sslmode=verify-ful", false),
            ("?sslmode=verify-full&pasword=secret", false),
            ("?sslmode=verify-full&channel_binding=require", false),
        ] {
            let url = SecretUrl::from(&*format!("postgres://u@h/d{parameters}"));
            let config = PostgresConfig { url, ..PostgresConfig::default() };
            assert_eq!(config.validate().is_empty(), good, "{parameters}");
        }
    }
}
