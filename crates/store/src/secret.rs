//! A connection URL whose password never appears in output.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer};

/// A URL that may contain a password. `Debug` hides it.
#[derive(Clone)]
pub struct SecretUrl(SecretString);

impl SecretUrl {
    /// The whole URL, for the connection.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether the URL is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.expose().is_empty()
    }
}

impl From<&str> for SecretUrl {
    fn from(url: &str) -> Self {
        // A secret from a file often ends in a line feed.
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
    fn debug_hides_the_password_and_a_trailing_line_feed_is_ignored() {
        let url = SecretUrl::from("redis://:canary@localhost/\n");
        assert!(!format!("{url:?}").contains("canary"));
        assert_eq!(url, SecretUrl::from("redis://:canary@localhost/"));
    }
}
