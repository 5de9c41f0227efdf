//! Verifies requests as an endpoint does, by the text of Standard Webhooks alone.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::request::Request;

/// How far a timestamp may be from the clock of an endpoint, in seconds.
const TOLERANCE: u64 = 300;

/// The key of a secret as it was shown; `None` if it is none.
pub(super) fn key(secret: &str) -> Option<Vec<u8>> {
    STANDARD.decode(secret.strip_prefix("whsec_")?).ok()
}

/// Whether a request is genuine; else what is wrong with it.
pub(super) fn verify(key: &[u8], request: &Request) -> Result<(), String> {
    let timestamp = request.header("webhook-timestamp");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    if timestamp.parse().map_or(true, |at: u64| at.abs_diff(now) > TOLERANCE) {
        return Err(format!("its timestamp is {timestamp:?} at {now}"));
    }
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|error| error.to_string())?;
    mac.update(format!("{}.{timestamp}.", request.header("webhook-id")).as_bytes());
    mac.update(&request.body);
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    let signatures = request.header("webhook-signature");
    if signatures.split(' ').any(|signature| signature == expected) {
        return Ok(());
    }
    Err(format!("its signature is {signatures:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A signature made by hand, as the product is not here to make one.
    #[test]
    fn only_what_was_signed_with_the_key_is_genuine() {
        let key = key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let request = |at: u64, signed: &[u8], body: &[u8]| {
            let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
            mac.update(format!("m1.{at}.").as_bytes());
            mac.update(signed);
            let signature = format!("v1,x v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
            let headers = [("webhook-id", "m1".to_owned()), ("webhook-timestamp", at.to_string())];
            let headers = headers.into_iter().chain([("webhook-signature", signature)]);
            let headers = headers.map(|(name, value)| (name.to_owned(), value)).collect();
            Request { endpoint: "always".to_owned(), headers, body: body.to_vec() }
        };
        assert_eq!(verify(&key, &request(now, b"a", b"a")), Ok(()));
        assert!(verify(&key, &request(now, b"a", b"b")).is_err());
        assert!(verify(&key[1..], &request(now, b"a", b"a")).is_err());
        assert!(verify(&key, &request(now - TOLERANCE - 9, b"a", b"a")).is_err());
    }

    #[test]
    fn a_secret_is_read() {
        assert_eq!(super::key("whsec_AAEC"), Some(vec![0, 1, 2]));
        assert_eq!((super::key("AAEC"), super::key("whsec_!")), (None, None));
    }
}
