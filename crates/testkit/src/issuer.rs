//! An issuer of JSON Web Tokens.

use std::ops::Range;

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::{Value, json};

/// Bytes before the RSA key in the PKCS #8 of a key of 2,048 bits.
const PKCS8_HEAD: usize = 26;

/// PKCS #8 of a key on Ed25519 up to its seed, and where the seed is. The generated one has the public key behind it, which
/// the library does not take.
const ED25519_HEAD: [u8; 16] = *b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
const ED25519_SEED: Range<usize> = 16..48;

/// A key that signs tokens.
#[derive(Debug)]
pub struct SigningKey {
    kid: String,
    algorithm: Algorithm,
    key: EncodingKey,
}

impl SigningKey {
    /// A new key for RS256.
    ///
    /// # Panics
    /// Without random bytes.
    pub fn rs256(kid: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_RSA_SHA256).expect("an RSA key");
        let key = EncodingKey::from_rsa_der(&pair.serialized_der()[PKCS8_HEAD..]);
        Self { kid: kid.to_owned(), algorithm: Algorithm::RS256, key }
    }

    /// A new key for ES256.
    ///
    /// # Panics
    /// Without random bytes.
    pub fn es256(kid: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key on P-256");
        Self { kid: kid.to_owned(), algorithm: Algorithm::ES256, key: EncodingKey::from_ec_der(pair.serialized_der()) }
    }

    /// A new key for `EdDSA`.
    ///
    /// # Panics
    /// Without random bytes.
    pub fn eddsa(kid: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ED25519).expect("a key on Ed25519");
        let key = EncodingKey::from_ed_der(&[&ED25519_HEAD, &pair.serialized_der()[ED25519_SEED]].concat());
        Self { kid: kid.to_owned(), algorithm: Algorithm::EdDSA, key }
    }

    /// The header of its tokens.
    pub fn header(&self) -> Header {
        Header { kid: Some(self.kid.clone()), ..Header::new(self.algorithm) }
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_as(&self.header(), claims)
    }

    /// A token with a header of its own, whose algorithm is of the key's kind.
    ///
    /// # Panics
    /// If it is not.
    pub fn sign_as(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.key).expect("a token")
    }

    /// The public key.
    ///
    /// # Panics
    /// Never: it is of one of the kinds above.
    pub fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, self.algorithm).expect("a public key");
        let mut jwk = serde_json::to_value(jwk).expect("a public key in JSON");
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }
}

/// A JWK set of the public keys.
pub fn jwk_set(keys: &[&SigningKey]) -> String {
    json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string()
}
