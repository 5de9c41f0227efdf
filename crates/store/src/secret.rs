//! A connection URL: its password is never shown.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};

/// A URL that may hold a password. Compared and passed on, never printed.
#[derive(Clone)]
pub struct SecretUrl(SecretString);

impl SecretUrl {
    /// The whole URL, to connect with.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl From<&str> for SecretUrl {
    fn from(url: &str) -> Self {
        // A secret read from a file often ends in a line feed.
        Self(SecretString::from(url.trim()))
    }
}

impl<'de> Deserialize<'de> for SecretUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|url| Self::from(url.as_str()))
    }
}

impl PartialEq for SecretUrl {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretUrl(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_not_shown_and_a_line_feed_does_not_count() {
        let url = SecretUrl::from("redis://:canary@localhost/\n");
        assert!(!format!("{url:?}").contains("canary"));
        assert_eq!(url, SecretUrl::from("redis://:canary@localhost/"));
    }
}
