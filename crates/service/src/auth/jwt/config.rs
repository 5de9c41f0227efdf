//! Settings of tokens, section `[auth.jwt]`.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use http::Uri;
use millrace_base::{Bounds, Span, Violation};
use serde::Deserialize;

use crate::net::is_loopback;

const REFRESH_INTERVAL: RangeInclusive<Span> = Span::from_secs(60)..=Span::from_secs(86_400);
/// Beyond it the expiry of a token would mean little.
const LEEWAY: RangeInclusive<Span> = Span::from_secs(0)..=Span::from_secs(60);
/// Most claims that scopes are looked for in.
const MAX_SCOPE_CLAIMS: usize = 8;

/// Settings of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    /// The file with the issuer's public keys; empty for none.
    pub jwks_file: PathBuf,
    /// The URL of the issuer's public keys; empty for none.
    pub jwks_url: String,
    /// The authorities that the URL's certificate is trusted by, in PEM; empty for those of the system.
    pub jwks_ca_file: PathBuf,
    /// Between two reads of the URL.
    pub jwks_refresh_interval: Span,
    /// The claim `iss` of every token.
    pub issuer: String,
    /// Has to be in the claim `aud` of every token.
    pub audience: String,
    /// How far this clock and the issuer's may differ.
    pub leeway: Span,
    /// The claim with the principal.
    pub principal_claim: String,
    /// The claims with the scopes; the first that a token has counts.
    pub scope_claims: Vec<String>,
}

impl JwtConfig {
    /// Whether tokens are taken.
    pub fn is_on(&self) -> bool {
        !self.jwks_file.as_os_str().is_empty() || !self.jwks_url.is_empty()
    }

    /// Where the issuer publishes its keys; `None` without a URL, or if it is not allowed.
    pub(super) fn url(&self) -> Option<Uri> {
        let uri: Uri = self.jwks_url.parse().ok()?;
        let authority = uri.authority()?;
        let allowed = match uri.scheme_str()? {
            "https" => true,
            "http" => is_loopback(authority.host()),
            _ => false,
        };
        (allowed && !authority.as_str().contains('@')).then_some(uri)
    }

    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let mut bounds = Bounds::new();
        if !self.is_on() {
            return bounds.into_violations();
        }
        let (file, url) = (!self.jwks_file.as_os_str().is_empty(), !self.jwks_url.is_empty());
        let claims = &self.scope_claims;
        bounds
            .check(!(file && url), "jwks_url", "empty, since jwks_file is set: the keys have one source")
            .check(
                !url || self.url().is_some(),
                "jwks_url",
                "an https URL, or an http URL of a loopback address, without a user",
            )
            .check(url || self.jwks_ca_file.as_os_str().is_empty(), "jwks_ca_file", "empty without jwks_url")
            .range("jwks_refresh_interval", &self.jwks_refresh_interval, &REFRESH_INTERVAL)
            .check(!self.issuer.is_empty(), "issuer", "the claim iss of the tokens")
            .check(!self.audience.is_empty(), "audience", "in the claim aud of the tokens")
            .range("leeway", &self.leeway, &LEEWAY)
            .check(!self.principal_claim.is_empty(), "principal_claim", "the name of a claim")
            .check(
                (1..=MAX_SCOPE_CLAIMS).contains(&claims.len()) && claims.iter().all(|name| !name.is_empty()),
                "scope_claims",
                format_args!("the names of 1..={MAX_SCOPE_CLAIMS} claims"),
            );
        bounds.into_violations()
    }
}
