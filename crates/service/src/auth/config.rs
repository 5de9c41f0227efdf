//! Settings of authentication, section `[auth]`.

use std::path::PathBuf;

use http::uri::Authority;
use millrace_base::{Bounds, Violation};
use serde::Deserialize;

use super::{JwtConfig, PrincipalLimits};

/// Settings of authentication.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// Whether requests need a credential.
    pub mode: AuthMode,
    /// Allows [`AuthMode::Off`] on listeners beyond loopback.
    pub allow_off_beyond_loopback: bool,
    /// Hosts that listeners on loopback serve with [`AuthMode::Off`], beside `localhost` and addresses.
    pub allowed_hosts: Vec<String>,
    /// The file of API keys.
    pub keys_file: PathBuf,
    /// The file with the key that this process shows to others; empty for none.
    pub process_key_file: PathBuf,
    /// Tokens of an issuer, beside keys.
    pub jwt: JwtConfig,
    /// Requests a second of one address without a valid credential; 0 for no bound.
    pub max_failure_rate_per_ip: u32,
    /// Rates of each principal.
    pub limits: PrincipalLimits,
}

/// Whether requests need a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// No: everybody is `anonymous` and may do everything.
    Off,
    /// Yes: an API key, or a token of the issuer.
    Keys,
}

impl AuthConfig {
    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let mut bounds = Bounds::new();
        bounds.check(
            self.mode == AuthMode::Off || !self.keys_file.as_os_str().is_empty(),
            "keys_file",
            "a file: auth.mode = \"keys\" needs one",
        );
        bounds.section("jwt", self.jwt.validate());
        bounds.range("max_failure_rate_per_ip", &self.max_failure_rate_per_ip, &(0..=1_000_000));
        bounds.section("limits", self.limits.validate());
        let is_host = |host: &String| host.parse::<Authority>().is_ok_and(|parsed| parsed.host() == host);
        bounds.check(self.allowed_hosts.iter().all(is_host), "allowed_hosts", "names without a port");
        bounds.into_violations()
    }
}
