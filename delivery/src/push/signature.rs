//! Signatures of requests, as Standard Webhooks defines them: over `{id}.{timestamp}.{body}`.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millrace_contracts::topics::SignatureKind;

/// A key as it is kept: 32 bytes in base64.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    /// Reads a key; `None` if it is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        STANDARD.decode(text).ok().map(Self)
    }

    /// What the endpoint verifies with: the shared secret, or the public key.
    pub(crate) fn shown(&self, kind: SignatureKind) -> String {
        match (kind, self.pair()) {
            (SignatureKind::V1a, Some(pair)) => format!("whpk_{}", STANDARD.encode(pair.public_key())),
            _ => format!("whsec_{}", STANDARD.encode(&self.0)),
        }
    }

    fn pair(&self) -> Option<Ed25519KeyPair> {
        Ed25519KeyPair::from_seed_unchecked(&self.0).ok()
    }

    /// The signature of one request, with its version in front.
    pub(crate) fn sign(&self, kind: SignatureKind, id: &str, timestamp: i64, body: &[u8]) -> String {
        let head = format!("{id}.{timestamp}.");
        if let (SignatureKind::V1a, Some(pair)) = (kind, self.pair()) {
            let signed = [head.as_bytes(), body].concat();
            return format!("v1a,{}", STANDARD.encode(pair.sign(&signed)));
        }
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.0));
        context.update(head.as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

/// The value of `webhook-signature`: one signature for each key.
pub(crate) fn header(keys: &[Key], kind: SignatureKind, id: &str, timestamp: i64, body: &[u8]) -> String {
    let signatures: Vec<String> = keys.iter().map(|key| key.sign(kind, id, timestamp, body)).collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};

    use super::*;

    /// The published vector of Standard Webhooks.
    #[test]
    fn signs_the_published_vector() {
        let key = Key::parse("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signature =
            key.sign(SignatureKind::V1, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(key.shown(SignatureKind::V1), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    }

    #[test]
    fn an_asymmetric_signature_verifies_with_the_key_that_is_shown() {
        let key = Key(super::super::keyring::random().to_vec());
        let public = STANDARD.decode(key.shown(SignatureKind::V1a).strip_prefix("whpk_").unwrap()).unwrap();
        let value = header(&[key.clone(), key], SignatureKind::V1a, "m1", 7, b"body");
        for signature in value.split(' ') {
            let signature = STANDARD.decode(signature.strip_prefix("v1a,").unwrap()).unwrap();
            UnparsedPublicKey::new(&ED25519, &public).verify(b"m1.7.body", &signature).unwrap();
        }
    }
}
