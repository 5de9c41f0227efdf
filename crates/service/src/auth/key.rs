//! API keys: `mk_{id}_{secret}`.

use std::fmt;

use http::HeaderValue;
use sha2::{Digest as _, Sha256};

const PREFIX: &str = "mk_";
/// Characters of a key's id, a-z and 0-9.
const ID_CHARS: usize = 12;
/// Characters of a key's secret, of 62 kinds: 256 bits.
const SECRET_CHARS: usize = 43;
const ALPHABET: &[u8; 62] = b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";

/// A key as its holder has it. `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// A new key of random bytes from the operating system.
    ///
    /// # Errors
    /// If the operating system has none.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut key = PREFIX.to_owned();
        push_random(&mut key, ID_CHARS, 36)?;
        key.push('_');
        push_random(&mut key, SECRET_CHARS, 62)?;
        Ok(Self(key))
    }

    /// The key in `text`, if it has the form of one.
    pub fn parse(text: &str) -> Option<Self> {
        id_of(text).map(|_| Self(text.to_owned()))
    }

    /// The id, which is no secret.
    pub fn id(&self) -> &str {
        id_of(&self.0).unwrap_or_default()
    }

    /// The whole key. Never log it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The value of an `Authorization` header with the key. `Debug` hides it.
    ///
    /// # Panics
    /// Never: every key is ASCII.
    pub fn bearer(&self) -> HeaderValue {
        let mut value = HeaderValue::try_from(format!("Bearer {}", self.0)).expect("a key has letters and digits only");
        value.set_sensitive(true);
        value
    }

    /// What the keys file has of the key: SHA-256 of its text, as 64 hexadecimal digits.
    pub fn sha256(&self) -> String {
        use fmt::Write as _;
        digest(&self.0).iter().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKey({})", self.id())
    }
}

/// SHA-256 of a key's text. The secret has 256 random bits, so that a slow hash would protect nothing.
pub(super) fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key).into()
}

/// The id of a text that has the form of a key.
pub(super) fn id_of(text: &str) -> Option<&str> {
    let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let legal = is_id(id) && secret.len() == SECRET_CHARS && secret.bytes().all(|byte| byte.is_ascii_alphanumeric());
    legal.then_some(id)
}

/// Whether a text is the id of a key.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == ID_CHARS && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Appends `length` characters of the first `kinds` of the alphabet, each as likely as the others.
fn push_random(text: &mut String, length: usize, kinds: u8) -> Result<(), getrandom::Error> {
    let end = text.len() + length;
    // A byte at or above the largest multiple of `kinds` would make some characters likelier.
    let fair = u8::MAX - u8::MAX % kinds;
    while text.len() < end {
        let mut bytes = [0; 64];
        getrandom::fill(&mut bytes)?;
        let chars = bytes.iter().filter(|&&byte| byte < fair).map(|byte| ALPHABET[usize::from(byte % kinds)] as char);
        text.extend(chars.take(end - text.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_form_and_differ() {
        let keys: std::collections::HashSet<String> = (0..100).map(|_| ApiKey::generate().unwrap().0).collect();
        assert_eq!(keys.len(), 100);
        assert!(keys.iter().all(|key| key.len() == 59 && id_of(key).is_some()), "{keys:?}");
        let kinds: std::collections::HashSet<char> = keys.iter().flat_map(|key| key[16..].chars()).collect();
        assert_eq!(kinds.len(), 62, "4,300 characters have every kind");
    }

    #[test]
    fn other_texts_are_no_keys() {
        let key = ApiKey::generate().unwrap().0;
        let long = format!("{key}x");
        for text in ["", "mk_", "mk__", &key[1..], &key[..58], &long, &key.replace("mk_", "MK_")] {
            assert_eq!(id_of(text), None, "{text}");
        }
    }

    #[test]
    fn debug_hides_the_secret_and_the_digest_is_that_of_the_text() {
        let key = ApiKey(format!("mk_abcdefghij12_{}", "s".repeat(43)));
        assert_eq!(format!("{key:?}"), "ApiKey(abcdefghij12)");
        // printf %s mk_abcdefghij12_sss… | sha256sum
        assert_eq!(key.sha256().len(), 64);
        assert_eq!(digest("abc")[..4], [0xba, 0x78, 0x16, 0xbf]);
    }
}
