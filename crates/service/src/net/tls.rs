//! Encryption of connections.

use serde::Deserialize;

/// Settings of encryption, section `[tls]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Whether a proxy in front of the process encrypts.
    pub terminated_upstream: bool,
}
