//! The issuer's public keys.

use std::collections::BTreeSet;
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use tokio_util::sync::CancellationToken;

use super::JwtConfig;
use crate::auth::keyring::Difference;
use crate::shown;

/// Most keys of a set. An issuer has a few: one in use, and those before and after it.
const MAX_KEYS: usize = 64;

/// The keys that tokens are signed with. Replaced as a whole.
#[derive(Default)]
pub(super) struct KeySet(Vec<Arc<PublicKey>>);

/// One key, with the one algorithm that it is for.
pub(super) struct PublicKey {
    jwk: Jwk,
    algorithm: Algorithm,
    pub(super) key: DecodingKey,
    /// What tokens of this key have to be.
    pub(super) validation: Validation,
    /// Canceled when the issuer withdraws the key: every identity by a token of it ends.
    pub(super) withdrawn: CancellationToken,
}

impl KeySet {
    /// Reads a JWK set. Keys for anything else than RS256, ES256 and `EdDSA` are left out, as RFC 7517 asks for.
    ///
    /// # Errors
    /// It is none, it is too large, or it has keys and none of use.
    pub(super) fn parse(bytes: &[u8], config: &JwtConfig) -> Result<Self, String> {
        let set: JwkSet = serde_json::from_slice(bytes)
            .map_err(|error| format!("is not a JWK set: {}", shown(&error.to_string())))?;
        if set.keys.len() > MAX_KEYS {
            return Err(format!("has more than {MAX_KEYS} keys"));
        }
        let empty = set.keys.is_empty();
        let keys: Vec<_> = set.keys.into_iter().filter_map(|jwk| PublicKey::new(jwk, config)).map(Arc::new).collect();
        if keys.is_empty() && !empty {
            return Err("has no key for RS256, ES256 or EdDSA".into());
        }
        Ok(Self(keys))
    }

    /// This set with the keys that `old` has as well taken from there: their tokens go on.
    pub(super) fn keeping(mut self, old: &Self) -> Self {
        for key in &mut self.0 {
            if let Some(same) = old.0.iter().find(|same| same.jwk == key.jwk) {
                *key = same.clone();
            }
        }
        self
    }

    /// Ends the tokens of keys that `new` does not have.
    pub(super) fn withdraw(&self, new: &Self) {
        for key in self.0.iter().filter(|key| !new.0.iter().any(|kept| Arc::ptr_eq(kept, key))) {
            key.withdrawn.cancel();
        }
    }

    /// The keys that a token with this header may be signed with: those of its algorithm and of its key id, if it has one.
    pub(super) fn candidates(&self, header: &Header) -> impl Iterator<Item = &Arc<PublicKey>> {
        let fits = |key: &&Arc<PublicKey>| {
            key.algorithm == header.alg && (header.kid.is_none() || header.kid == key.jwk.common.key_id)
        };
        self.0.iter().filter(fits)
    }

    /// Whether a key has this id.
    pub(super) fn has(&self, kid: &str) -> bool {
        self.0.iter().any(|key| key.jwk.common.key_id.as_deref() == Some(kid))
    }

    /// The number of keys.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// What `new` changes. Another key under the id of an old one is a change.
    pub(super) fn difference(&self, new: &Self) -> Difference {
        let ids = |keys: &[Arc<PublicKey>]| keys.iter().map(|key| key.id()).collect::<BTreeSet<_>>();
        let (before, after) = (ids(&self.0), ids(&new.0));
        let is_new = |key: &&Arc<PublicKey>| !self.0.iter().any(|kept| Arc::ptr_eq(kept, key));
        let ids_of_new = new.0.iter().filter(is_new).map(|key| key.id());
        Difference {
            added: after.difference(&before).cloned().collect(),
            changed: ids_of_new.filter(|id| before.contains(id)).collect(),
            removed: before.difference(&after).cloned().collect(),
        }
    }
}

impl PublicKey {
    /// The id, for logs.
    fn id(&self) -> String {
        shown(self.jwk.common.key_id.as_deref().unwrap_or("-"))
    }

    fn new(jwk: Jwk, config: &JwtConfig) -> Option<Self> {
        let algorithm = algorithm_of(&jwk)?;
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let mut validation = Validation::new(algorithm);
        validation.leeway = config.leeway.0.as_secs();
        validation.validate_nbf = true;
        validation.set_issuer(&[&config.issuer]);
        validation.set_audience(&[&config.audience]);
        // The library checks the claims that a token has; these it has to have.
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        Some(Self { jwk, algorithm, key, validation, withdrawn: CancellationToken::new() })
    }
}

/// The algorithm that a key is for, by its type; `None` if it is for no signatures that are taken here.
fn algorithm_of(jwk: &Jwk) -> Option<Algorithm> {
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        _ => return None,
    };
    let common = &jwk.common;
    let named = common.key_algorithm.is_none_or(|named| named == KeyAlgorithm::from(algorithm));
    let signs = common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature);
    let verifies = common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
    (named && signs && verifies).then_some(algorithm)
}
