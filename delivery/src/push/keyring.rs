//! Keys that seal the secrets of endpoints in the log: AES-256-GCM-SIV, from a file.
//!
//! The nonce is fixed, which this cipher is made for: equal secrets of one subscription have equal sealed forms, so that
//! settings compare without being opened, and nothing else is revealed (RFC 8452, section 9).

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millrace_contracts::topics::{Name, Secret};
use millrace_contracts::{Code, Refusal};
use millrace_service::{FileError, read_private};

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// The keys, the current one first. Empty: push subscriptions are refused.
#[derive(Default)]
pub struct Keyring(Vec<(String, LessSafeKey)>);

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id)).finish()
    }
}

/// What a secret belongs to: sealed for one subscription, it opens for no other.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Owner<'a> {
    pub(crate) topic: &'a Name,
    pub(crate) subscription: &'a Name,
}

/// The file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// It cannot be read or written.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It may not be used as it is.
    #[error("{0}")]
    Invalid(String),
    /// A line is no key.
    #[error("line {0} is not an id and 32 bytes in base64")]
    Line(usize),
    /// It has no key.
    #[error("it has no key")]
    Empty,
}

impl From<FileError> for KeyringError {
    /// Without the path, which the caller has.
    fn from(error: FileError) -> Self {
        match error {
            FileError::Io { source, .. } => Self::Io(source),
            FileError::Invalid { problem, .. } => Self::Invalid(problem),
        }
    }
}

impl Keyring {
    /// Reads a file of lines `id key`, the key 32 bytes in base64. The first key seals, all of them open.
    ///
    /// # Errors
    /// A file that cannot be read, that others may write, or that has another form.
    pub fn read(path: &Path) -> Result<Self, KeyringError> {
        let text = String::from_utf8(read_private(path)?).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let mut keys = Vec::new();
        let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line.trim()));
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let (id, key) = line.split_once(' ').ok_or(KeyringError::Line(number))?;
            let key = STANDARD.decode(key.trim()).map_err(|_| KeyringError::Line(number))?;
            let key = UnboundKey::new(&AES_256_GCM_SIV, &key).map_err(|_| KeyringError::Line(number))?;
            if id.contains('.') {
                return Err(KeyringError::Line(number));
            }
            keys.push((id.to_owned(), LessSafeKey::new(key)));
        }
        if keys.is_empty() { Err(KeyringError::Empty) } else { Ok(Self(keys)) }
    }

    /// Reads a file; writes one with a new key if it is missing. Only its owner may read it.
    ///
    /// # Errors
    /// As [`Keyring::read`], and a file that cannot be written.
    pub fn read_or_create(path: &Path) -> Result<Self, KeyringError> {
        if !path.exists() {
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let mut file = options.open(path)?;
            let line = format!("k1 {}\n", STANDARD.encode(random()));
            file.write_all(line.as_bytes())?;
            file.sync_all()?;
        }
        Self::read(path)
    }

    /// Seals a text for a subscription.
    ///
    /// # Errors
    /// No key is configured.
    pub(crate) fn seal(&self, owner: Owner<'_>, text: &str) -> Result<Secret, Refusal> {
        let Some((id, key)) = self.0.first() else {
            let detail = "push subscriptions have secrets, which this server cannot seal: set delivery.secrets_file";
            return Err(Refusal::new(Code::InvalidField, detail).field("mode"));
        };
        let mut bytes = text.as_bytes().to_vec();
        let sealed = key.seal_in_place_append_tag(nonce(), Aad::from(context(owner)), &mut bytes);
        sealed.map_err(|_| Refusal::new(Code::Internal, "a secret cannot be sealed"))?;
        Ok(Secret { text: format!("{id}.{}", STANDARD.encode(&bytes)), sealed: true })
    }

    /// Opens a sealed text; `None` if its key is not there, or if it is of another subscription.
    pub(crate) fn open(&self, owner: Owner<'_>, secret: &Secret) -> Option<String> {
        if !secret.sealed {
            return Some(secret.text.clone());
        }
        let (id, text) = secret.text.split_once('.')?;
        let (_, key) = self.0.iter().find(|(known, _)| known == id)?;
        let mut bytes = STANDARD.decode(text).ok()?;
        let opened = key.open_in_place(nonce(), Aad::from(context(owner)), &mut bytes).ok()?;
        String::from_utf8(opened.to_vec()).ok()
    }
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

fn context(Owner { topic, subscription }: Owner<'_>) -> Vec<u8> {
    // No name has a slash.
    let mut context = String::new();
    let _ = write!(context, "{topic}/{subscription}");
    context.into_bytes()
}

/// 32 random bytes.
pub(crate) fn random() -> [u8; KEY_BYTES] {
    let mut bytes = [0; KEY_BYTES];
    aws_lc_rs::rand::fill(&mut bytes).expect("the system has randomness");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_secret_opens_for_its_subscription_only() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys");
        let keyring = Keyring::read_or_create(&path).unwrap();
        let name = |text: &str| Name::parse(text).unwrap();
        let (topic, subscription, other) = (name("orders"), name("hook"), name("other"));
        let owner = Owner { topic: &topic, subscription: &subscription };
        let sealed = keyring.seal(owner, "whsec_x").unwrap();
        assert!(sealed.sealed && !sealed.text.contains("whsec"));
        assert_eq!(keyring.seal(owner, "whsec_x").unwrap(), sealed);
        assert_eq!(keyring.open(owner, &sealed).as_deref(), Some("whsec_x"));
        assert_eq!(keyring.open(Owner { subscription: &other, ..owner }, &sealed), None);
        // Another process with the same file; another key in front still opens what the first one sealed.
        let line = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("# rotated\nk2 {}\n{line}", STANDARD.encode(random()))).unwrap();
        let rotated = Keyring::read_or_create(&path).unwrap();
        assert_eq!(rotated.open(owner, &sealed).as_deref(), Some("whsec_x"));
        assert!(rotated.seal(owner, "whsec_x").unwrap().text.starts_with("k2."));
        assert!(Keyring::default().seal(owner, "x").is_err());
        std::fs::write(&path, "k1 short\n").unwrap();
        assert!(matches!(Keyring::read(&path), Err(KeyringError::Line(1))));
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o620)).unwrap();
        assert!(matches!(Keyring::read(&path), Err(KeyringError::Invalid(_))), "others may write it");
    }
}
