//! Verification of requests, as an endpoint does it.

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What an endpoint verifies requests with: the `secret` of a push subscription. Its kind selects the algorithm, never what
/// a request names.
#[derive(Debug, Clone)]
pub struct VerifyingKey(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Shared(Box<hmac::Key>),
    Public(UnparsedPublicKey<Vec<u8>>),
}

impl VerifyingKey {
    /// Reads `whsec_…` or `whpk_…`; `None` if it is neither.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, key) = text.split_once('_')?;
        let key = STANDARD.decode(key).ok().filter(|key| !key.is_empty())?;
        match kind {
            "whsec" => Some(Self(Kind::Shared(Box::new(hmac::Key::new(hmac::HMAC_SHA256, &key))))),
            "whpk" if key.len() == 32 => Some(Self(Kind::Public(UnparsedPublicKey::new(&ED25519, key)))),
            _ => None,
        }
    }

    /// The version of its signatures.
    pub fn version(&self) -> &'static str {
        match self.0 {
            Kind::Shared(_) => "v1",
            Kind::Public(_) => "v1a",
        }
    }

    /// Whether one of the signatures, as `webhook-signature` lists them, is of this key.
    pub fn verifies(&self, id: &str, timestamp: &str, body: &[u8], signatures: &str) -> bool {
        let signed = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
        signatures.split(' ').any(|signature| {
            let Some((version, signature)) = signature.split_once(',') else { return false };
            let Ok(signature) = STANDARD.decode(signature) else { return false };
            let matches = match &self.0 {
                Kind::Shared(key) => hmac::verify(key, &signed, &signature).is_ok(),
                Kind::Public(key) => key.verify(&signed, &signature).is_ok(),
            };
            version == self.version() && matches
        })
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Vector {
        name: String,
        genuine: bool,
        key: String,
        id: String,
        timestamp: String,
        body_base64: String,
        signature: Option<String>,
    }

    /// The table that the examples of endpoints pass.
    #[test]
    fn passes_the_vectors() {
        let vectors: Vec<Vector> = serde_json::from_str(include_str!("../../../examples/push/vectors.json")).unwrap();
        assert!(vectors.len() > 20);
        // What a timestamp may be is for the caller to check.
        for vector in
            vectors.iter().filter(|vector| !vector.name.contains("timestamp that") && vector.name != "no timestamp")
        {
            let body = STANDARD.decode(&vector.body_base64).unwrap();
            let signatures = vector.signature.as_deref().unwrap_or_default();
            let key = VerifyingKey::parse(&vector.key).unwrap();
            let verified = key.verifies(&vector.id, &vector.timestamp, &body, signatures);
            assert_eq!(verified, vector.genuine, "{}", vector.name);
        }
    }

    #[test]
    fn reads_keys() {
        for bad in ["", "whsec_", "whsec_!", "whpk_AAAA", "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "MfKQ9r8GKYqrTwjU"] {
            assert!(VerifyingKey::parse(bad).is_none(), "{bad}");
        }
    }
}
