//! Turns a token into an identity.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jsonwebtoken::{decode, decode_header};
use metrics::gauge;
use millrace_contracts::{AuditOutcome, metric};
use quick_cache::sync::Cache;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::key_set::{KeySet, PublicKey};
use super::refresh::Refresh;
use super::{JwtConfig, TokenRefusal};
use crate::audit::{Act, Audit};
use crate::auth::keyring::Difference;
use crate::auth::rate::{KeyLimits, Quotas};
use crate::auth::{Identity, Scope, Scopes};

/// Longest token.
pub(super) const MAX_TOKEN: usize = 8 << 10;
/// Longest subject, in characters: with `jwt:` a principal has 256 at most.
const MAX_SUBJECT: usize = 252;
/// Longest `jti` that is recorded.
const MAX_ID: usize = 64;
/// Most keys that are tried for a token without a key id.
const MAX_TRIES: usize = 4;
/// Tokens whose signature is not verified again.
const CACHED: usize = 4_096;

type Claims = Map<String, Value>;

/// Verifies tokens of the issuer.
pub(in crate::auth) struct Tokens {
    config: JwtConfig,
    /// `None` until they have been read.
    keys: ArcSwapOption<KeySet>,
    /// By the SHA-256 of the token.
    verified: Cache<[u8; 32], Arc<Identity>>,
    pub(super) refresh: Refresh,
    quotas: Arc<Quotas>,
    audit: Audit,
}

impl Tokens {
    pub(super) fn new(config: JwtConfig, quotas: Arc<Quotas>, audit: Audit) -> Self {
        let verified = Cache::new(CACHED);
        Self { config, keys: ArcSwapOption::empty(), verified, refresh: Refresh::default(), quotas, audit }
    }

    /// The identity of a token's holder. A token of an unknown key has the keys read again, see [`Self::refreshed`].
    ///
    /// # Errors
    /// The token is not taken; counted.
    pub(in crate::auth) fn verify(&self, token: &str, now_ms: i64) -> Result<Arc<Identity>, TokenRefusal> {
        let verified = self.identity_of(token, now_ms);
        if let Err(refusal) = verified {
            refusal.count();
            // A file is read each second as it is.
            if refusal == TokenRefusal::UnknownKey && !self.config.jwks_url.is_empty() {
                self.refresh.request();
            }
        }
        verified
    }

    /// Whether the keys are to be read, for a token of an unknown key.
    pub(in crate::auth) fn is_refreshing(&self) -> bool {
        self.refresh.is_pending()
    }

    /// Waits for the read that a token of an unknown key has requested.
    pub(in crate::auth) async fn refreshed(&self) {
        self.refresh.ended().await;
    }

    /// Replaces the keys by those of a JWK set. Identities by tokens of keys that are gone end.
    pub(super) fn replace(&self, bytes: &[u8]) -> Result<(), String> {
        let old = self.keys.load_full();
        let first = old.is_none();
        let old = old.unwrap_or_default();
        let new = Arc::new(KeySet::parse(bytes, &self.config)?.keeping(&old));
        self.keys.store(Some(new.clone()));
        // After the new keys are in place: what begins now cannot show a token of an old one.
        old.withdraw(&new);
        gauge!(metric::AUTH_JWKS_KEYS.name).set(new.len() as f64);
        let difference = old.difference(&new);
        if difference != Difference::default() {
            let Difference { added, changed, removed } = &difference;
            tracing::info!(?added, ?changed, ?removed, keys = new.len(), "read the issuer's keys");
            if !first {
                self.audit.end(Act::of_process("jwks.reload", &difference.to_string()), AuditOutcome::Done, "");
            }
        }
        Ok(())
    }

    fn identity_of(&self, token: &str, now_ms: i64) -> Result<Arc<Identity>, TokenRefusal> {
        if token.len() > MAX_TOKEN {
            return Err(TokenRefusal::TooLarge);
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        if let Some(identity) = self.verified.get(&digest).filter(|identity| identity.is_valid(now_ms)) {
            return Ok(identity);
        }
        let keys = self.keys.load();
        let keys = keys.as_ref().ok_or(TokenRefusal::NoKeys)?;
        let (claims, key) = signed_claims(token, keys)?;
        let identity = self.identity(&claims, key, &digest).ok_or(TokenRefusal::Claims)?;
        if !identity.is_valid(now_ms) {
            return Err(TokenRefusal::Expired);
        }
        let identity = Arc::new(identity);
        self.verified.insert(digest, identity.clone());
        Ok(identity)
    }

    /// The identity that verified claims are for.
    fn identity(&self, claims: &Claims, key: &PublicKey, digest: &[u8; 32]) -> Option<Identity> {
        let subject = claims.get(&self.config.principal_claim)?.as_str()?;
        if subject.is_empty() || subject.chars().count() > MAX_SUBJECT || subject.contains(char::is_control) {
            return None;
        }
        let expiry = Duration::try_from_secs_f64(claims.get("exp")?.as_f64()?).ok()?;
        let expires_ms = i64::try_from(expiry.saturating_add(self.config.leeway.0).as_millis()).ok()?;
        let id = claims.get("jti").and_then(Value::as_str);
        let id = id.filter(|id| (1..=MAX_ID).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()));
        // Of a token without an id: enough of its digest to find its requests by.
        let start = || format!("{:016x}", u64::from_be_bytes(*digest.first_chunk().unwrap_or(&[0; 8])));
        let id = id.map_or_else(start, str::to_owned);
        let principal = format!("jwt:{subject}");
        let quota = self.quotas.of(&principal, KeyLimits::default());
        let identity = Identity::new(&principal, &id, self.scopes(claims), quota);
        Some(identity.ending(key.withdrawn.child_token(), expires_ms))
    }

    /// The scopes of claims: a text with spaces, as RFC 9068 has it, or a list. Others than Millrace's are the issuer's affair.
    fn scopes(&self, claims: &Claims) -> Scopes {
        // A token is no key for a page, so it must not be taken from a URL.
        let scope = |text: &str| text.parse::<Scope>().ok().filter(|&scope| scope != Scope::PixelWrite);
        match self.config.scope_claims.iter().find_map(|name| claims.get(name)) {
            Some(Value::String(text)) => text.split(' ').filter_map(scope).collect(),
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).filter_map(scope).collect(),
            _ => Scopes::default(),
        }
    }
}

/// The claims of a token, and the key that it is signed with.
fn signed_claims<'a>(token: &str, keys: &'a KeySet) -> Result<(Claims, &'a PublicKey), TokenRefusal> {
    let header = decode_header(token).map_err(|error| TokenRefusal::from(error.kind()))?;
    if header.crit.is_some() {
        // RFC 7515, 4.1.11: what is critical has to be understood.
        return Err(TokenRefusal::Malformed);
    }
    if header.kid.as_deref().is_some_and(|kid| !keys.has(kid)) {
        return Err(TokenRefusal::UnknownKey);
    }
    let mut refusal = TokenRefusal::Algorithm;
    for key in keys.candidates(&header).take(MAX_TRIES) {
        match decode::<Claims>(token, &key.key, &key.validation) {
            Ok(token) => return Ok((token.claims, key.as_ref())),
            Err(error) => refusal = error.kind().into(),
        }
        if refusal != TokenRefusal::Signature {
            break;
        }
    }
    Err(refusal)
}
