//! The file of API keys, and of the certificates of clients.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use jiff::Timestamp;
use millrace_base::Violation;
use serde::{Deserialize, Serialize};

use super::key::is_id;
use super::{ApiKey, KeyLimits, PrincipalLimits, Scope, Scopes};
use crate::files::{self, FileError};
use crate::net::is_certificate_name;
use crate::shown;

/// Longest name of a key.
const MAX_NAME: usize = 64;

const HEADER: &str = "\
# The API keys of Millrace. `millrace keys` changes this file; every process reads it each second.
# sha256 is that of the key's text. A key itself stands nowhere: whoever loses one creates another. An entry with san in place of
# sha256 is for clients with a certificate of that subject alternative name.
";

/// One key, or one name of certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyEntry {
    /// The principal of a key is `key:` and this name. Two keys may share it: a key and its successor.
    pub name: String,
    /// The id: of a key its second part.
    pub id: String,
    /// SHA-256 of the key's text, 64 hexadecimal digits; empty for certificates.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// The subject alternative name of certificates, of which the principal is `cert:` and this text; absent for a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub san: Option<String>,
    /// What it allows.
    pub scopes: Vec<Scope>,
    /// When it was created, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// From when on it is not valid, in RFC 3339; never, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// Rates of this key in place of the configured ones.
    #[serde(default, skip_serializing_if = "KeyLimits::is_empty")]
    pub limits: KeyLimits,
}

impl KeyEntry {
    /// The entry of a new key.
    ///
    /// # Errors
    /// The name or the scopes are not allowed.
    pub fn new(
        key: &ApiKey,
        name: &str,
        scopes: &[Scope],
        created: Timestamp,
        expires: Option<Timestamp>,
    ) -> Result<Self, String> {
        let entry = Self {
            name: name.to_owned(),
            id: key.id().to_owned(),
            sha256: key.sha256(),
            san: None,
            scopes: Scope::ALL.iter().copied().filter(|scope| scopes.contains(scope)).collect(),
            created: Some(created.to_string()),
            expires: expires.map(|time| time.to_string()),
            limits: KeyLimits::default(),
        };
        entry.check().map(|()| entry)
    }

    /// The entry of certificates with this name.
    ///
    /// # Errors
    /// The names or the scopes are not allowed, or the operating system has no random bytes for its id.
    pub fn of_certificate(
        san: &str,
        name: &str,
        scopes: &[Scope],
        created: Timestamp,
        expires: Option<Timestamp>,
    ) -> Result<Self, String> {
        // For its id alone.
        let key = ApiKey::generate().map_err(|error| error.to_string())?;
        let entry = Self::new(&key, name, scopes, created, expires)?;
        let entry = Self { sha256: String::new(), san: Some(san.to_owned()), ..entry };
        entry.check().map(|()| entry)
    }

    /// The entry with limits of its own.
    ///
    /// # Errors
    /// They are out of their bounds.
    pub fn with_limits(self, limits: KeyLimits) -> Result<Self, String> {
        let entry = Self { limits, ..self };
        entry.check().map(|()| entry)
    }

    /// The principal: `key:NAME` or `cert:SAN`.
    pub fn principal(&self) -> String {
        match &self.san {
            Some(san) => format!("cert:{san}"),
            None => format!("key:{}", self.name),
        }
    }

    /// When it expires, in ms since the epoch.
    pub fn expires_ms(&self) -> Option<i64> {
        self.expires.as_ref()?.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
    }

    /// The digest as bytes; none of certificates.
    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        let mut digest = [0; 32];
        if self.sha256.len() != 64 || !self.sha256.is_ascii() {
            return None;
        }
        for (byte, at) in digest.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&self.sha256[at..at + 2], 16).ok()?;
        }
        Some(digest)
    }

    fn check(&self) -> Result<(), String> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !(1..=MAX_NAME).contains(&self.name.len()) || !self.name.bytes().all(legal) {
            return Err(format!("a name must be 1..={MAX_NAME} characters of A-Z a-z 0-9 . _ -"));
        }
        let of = |problem: &str| Err(format!("key {}: {problem}", self.name));
        if !is_id(&self.id) {
            return of("id must be 12 characters of a-z 0-9");
        }
        match &self.san {
            None if self.digest().is_none() => return of("sha256 must be 64 hexadecimal digits"),
            Some(_) if !self.sha256.is_empty() => return of("an entry has sha256 or san, not both"),
            Some(san) if !is_certificate_name(san) => {
                return of("san must be a DNS name in lower case, an address, a URI or an address of mail");
            }
            Some(_) if self.scopes.contains(&Scope::PixelWrite) => {
                return of("pixel:write is for keys on public pages, not for certificates");
            }
            None | Some(_) => {}
        }
        if self.scopes.is_empty() {
            return of("scopes must have at least one");
        }
        let scopes: Scopes = self.scopes.iter().copied().collect();
        if scopes.contains(Scope::PixelWrite) && scopes.has_more_than(Scope::PixelWrite) {
            return of("pixel:write must be its only scope: such a key is on public pages");
        }
        let time = |text: &Option<String>| text.as_ref().is_none_or(|text| text.parse::<Timestamp>().is_ok());
        if !time(&self.created) || !time(&self.expires) {
            return of("created and expires must be times in RFC 3339");
        }
        if let Some(Violation { key, allowed }) = self.limits.or(PrincipalLimits::NONE).validate().first() {
            return of(&format!("limits.{key} must be {allowed}"));
        }
        Ok(())
    }
}

/// The content of a keys file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// The entries, in the order of the file.
    #[serde(default, rename = "key")]
    pub keys: Vec<KeyEntry>,
}

impl KeyFile {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read, others may write it, or its content is not valid.
    pub fn read(path: &Path) -> Result<Self, FileError> {
        Self::parse(path, &files::read(path)?)
    }

    /// Checks the content of a file.
    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, FileError> {
        let invalid = |problem: String| FileError::invalid(path, problem);
        let text = str::from_utf8(bytes).map_err(|_| invalid("is not UTF-8".into()))?;
        let file: Self = toml::from_str(text).map_err(|error| invalid(described(text, &error)))?;
        let (mut ids, mut sans) = (HashSet::new(), HashSet::new());
        for entry in &file.keys {
            entry.check().map_err(&invalid)?;
            if !ids.insert(&entry.id) {
                return Err(invalid(format!("two keys have the id {}", entry.id)));
            }
            if let Some(san) = &entry.san
                && !sans.insert(san)
            {
                return Err(invalid(format!("two entries have the san {}", shown(san))));
            }
        }
        Ok(file)
    }

    /// Changes a file: reads it (a missing one is empty), applies `change` and replaces it by rename, so that a reader finds
    /// the old content or the new. Only the owner may read the new file. Two changes at once wait for each other.
    ///
    /// # Errors
    /// The file cannot be read or replaced, or `change` refuses.
    pub fn change<T>(path: &Path, change: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, FileError> {
        let io = |source| FileError::io(path, source);
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let directory = File::open(directory).map_err(io)?;
        // On the directory: the file itself is replaced.
        directory.lock().map_err(io)?;
        let mut file = if path.try_exists().map_err(io)? { Self::read(path)? } else { Self::default() };
        let invalid = |problem| FileError::invalid(path, problem);
        let changed = change(&mut file).map_err(invalid)?;
        let text = toml::to_string(&file).map_err(|error| invalid(error.to_string()))?;
        let new = path.with_extension("new");
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .and_then(|mut out| {
                out.write_all([HEADER, &text].concat().as_bytes())?;
                out.sync_all()
            })
            .and_then(|()| fs::rename(&new, path))
            .and_then(|()| directory.sync_all());
        written.map_err(io)?;
        Ok(changed)
    }
}

/// A problem of the content, by its line. The text of the error could repeat the content.
fn described(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    format!("line {line}: {}", shown(error.message()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use millrace_base::Size;

    use super::*;

    fn entry(name: &str, scopes: &[Scope]) -> Result<KeyEntry, String> {
        let now = "2026-11-21T08:00:00Z".parse().unwrap();
        KeyEntry::new(&ApiKey::generate().unwrap(), name, scopes, now, None)
    }

    #[test]
    fn a_changed_file_is_read_back_and_is_the_owners() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.toml");
        let shop = entry("shop", &[Scope::EventsWrite]).unwrap();
        KeyFile::change(&path, |file| {
            file.keys.push(shop.clone());
            Ok(())
        })
        .unwrap();
        let mut page = entry("page", &[Scope::CountsRead]).unwrap();
        page.limits = KeyLimits { max_request_rate: Some(5), max_byte_rate: Some(Size(1024)), ..KeyLimits::default() };
        KeyFile::change(&path, |file| {
            file.keys.push(page.clone());
            Ok(())
        })
        .unwrap();
        assert_eq!(KeyFile::read(&path).unwrap().keys, [shop, page]);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = KeyFile::change(&path, |file| {
            file.keys.clear();
            Err::<(), _>("no".into())
        });
        assert!(refused.is_err() && KeyFile::read(&path).unwrap().keys.len() == 2);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o620)).unwrap();
        assert!(KeyFile::read(&path).unwrap_err().to_string().contains("chmod 600"));
    }

    #[test]
    fn an_entry_of_certificates_has_a_name_in_place_of_a_digest() {
        let now = "2026-11-21T08:00:00Z".parse().unwrap();
        let entry = |san: &str, scopes: &[Scope]| KeyEntry::of_certificate(san, "sensor", scopes, now, None);
        let good = entry("sensor7.example", &[Scope::IntakeWrite]).unwrap();
        assert_eq!((good.principal().as_str(), good.digest()), ("cert:sensor7.example", None));
        for bad in ["", "Sensor7.example", "a b", "2001:DB8::1"] {
            assert!(entry(bad, &[Scope::IntakeWrite]).unwrap_err().contains("san must be"), "{bad}");
        }
        assert!(entry("a", &[Scope::PixelWrite]).unwrap_err().contains("pixel:write"));
        let path = Path::new("keys.toml");
        let parse = |keys: &[&KeyEntry]| {
            let text = toml::to_string(&KeyFile { keys: keys.iter().copied().cloned().collect() }).unwrap();
            KeyFile::parse(path, text.as_bytes()).map(|file| file.keys).map_err(|error| error.to_string())
        };
        assert_eq!(parse(&[&good]).as_deref(), Ok(&[good.clone()][..]));
        let same = entry("sensor7.example", &[Scope::Admin]).unwrap();
        assert!(parse(&[&good, &same]).unwrap_err().contains("two entries have the san sensor7.example"));
        let both = KeyEntry { sha256: "0".repeat(64), ..good.clone() };
        assert!(parse(&[&both]).unwrap_err().contains("not both"));
        let neither = KeyEntry { san: None, ..good.clone() };
        assert!(parse(&[&neither]).unwrap_err().contains("sha256"));
    }

    #[test]
    fn refuses_what_is_not_a_key() {
        assert!(entry("a b", &[Scope::Admin]).is_err() && entry("", &[Scope::Admin]).is_err());
        assert!(entry("a", &[]).is_err());
        assert!(entry("a", &[Scope::PixelWrite]).is_ok());
        assert!(entry("a", &[Scope::PixelWrite, Scope::CountsRead]).unwrap_err().contains("only scope"));
        let good = toml::to_string(&KeyFile { keys: vec![entry("a", &[Scope::Admin]).unwrap()] }).unwrap();
        let path = Path::new("keys.toml");
        let parse = |text: &str| KeyFile::parse(path, text.as_bytes());
        assert!(parse(&good).is_ok() && parse("").is_ok());
        for (from, to, part) in [
            ("name", "nome", "nome"),
            ("\"admin\"", "\"root\"", "scope"),
            ("sha256 = \"", "sha256 = \"x", "sha256"),
            ("id = \"", "id = \"x", "id must be"),
        ] {
            let problem = parse(&good.replace(from, to)).unwrap_err().to_string();
            assert!(problem.contains(part), "{problem}");
        }
        let limited = |limits: &str| parse(&format!("{good}{limits}")).map_err(|error| error.to_string());
        let limits = limited("limits = {max_event_rate = 7, max_byte_rate = \"0B\"}\n").unwrap().keys[0].limits;
        assert_eq!(
            (limits.max_request_rate, limits.max_event_rate, limits.max_byte_rate),
            (None, Some(7), Some(Size(0)))
        );
        let problem = limited("limits = {max_event_rate = 10000001}\n").unwrap_err();
        assert!(problem.contains("limits.max_event_rate must be 0..=10000000"), "{problem}");
        assert!(limited("limits = {max_rate = 1}\n").unwrap_err().contains("max_rate"));
        assert!(parse(&[&*good, &*good].concat()).unwrap_err().to_string().contains("two keys"));
    }
}
