//! The entries of the keys file that are valid now: keys, and names of clients' certificates.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use subtle::ConstantTimeEq as _;

use super::key::{digest, id_of};
use super::rate::Quotas;
use super::{Identity, KeyEntry, KeyFile};
use crate::net::ClientCertificate;

/// The entries of a file. Replaced as a whole when the file changes.
pub(super) struct Keyring {
    keys: ArcSwap<Keys>,
    quotas: Arc<Quotas>,
}

#[derive(Default)]
struct Keys {
    by_id: HashMap<Box<str>, LoadedKey>,
    /// Ids of the entries of certificates, by the names of those.
    by_san: HashMap<Box<str>, Box<str>>,
}

#[derive(Clone)]
struct LoadedKey {
    entry: Arc<KeyEntry>,
    /// Of a key; none of a certificate.
    digest: Option<[u8; 32]>,
    expires_ms: Option<i64>,
    identity: Arc<Identity>,
}

impl LoadedKey {
    fn new(entry: &KeyEntry, quotas: &Quotas) -> Self {
        let scopes = entry.scopes.iter().copied().collect();
        let principal = entry.principal();
        let quota = quotas.of(&principal, entry.limits);
        Self {
            digest: entry.digest(),
            expires_ms: entry.expires_ms(),
            identity: Arc::new(Identity::new(&principal, &entry.id, scopes, quota)),
            entry: Arc::new(entry.clone()),
        }
    }

    fn is_valid(&self, now_ms: i64) -> bool {
        self.expires_ms.is_none_or(|end| now_ms < end)
    }
}

/// What a reload changed: ids of entries.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) added: Vec<String>,
    pub(super) changed: Vec<String>,
    pub(super) removed: Vec<String>,
}

/// For the audit log: `added a b; removed c`.
impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("added", &self.added), ("changed", &self.changed), ("removed", &self.removed)];
        let mut separator = "";
        for (what, ids) in parts.into_iter().filter(|(_, ids)| !ids.is_empty()) {
            write!(f, "{separator}{what} {}", ids.join(" "))?;
            separator = "; ";
        }
        Ok(())
    }
}

impl Keyring {
    /// No keys yet.
    pub(super) fn new(quotas: Arc<Quotas>) -> Self {
        Self { keys: ArcSwap::default(), quotas }
    }

    /// The identity of a key's holder; `None` for any text that is not a valid key. An unknown id costs what a wrong secret
    /// does, so that the time tells nothing about ids.
    pub(super) fn verify(&self, key: &str, now_ms: i64) -> Option<Arc<Identity>> {
        const NOBODY: [u8; 32] = [0; 32];
        let id = id_of(key)?;
        let keys = self.keys.load();
        let held = keys.by_id.get(id).filter(|held| held.digest.is_some());
        let expected = held.and_then(|held| held.digest.as_ref()).unwrap_or(&NOBODY);
        let equal = bool::from(digest(key).ct_eq(expected));
        held.filter(|held| equal && held.is_valid(now_ms)).map(|held| held.identity.clone())
    }

    /// The identity of a certificate's holder, until the certificate or its entry ends: that of its first name with a valid
    /// entry.
    pub(super) fn of_certificate(&self, certificate: &ClientCertificate, now_ms: i64) -> Option<Arc<Identity>> {
        let keys = self.keys.load();
        let entry = |name: &str| keys.by_id.get(keys.by_san.get(name)?).filter(|held| held.is_valid(now_ms));
        let identity = certificate.names().find_map(entry)?.identity.until(certificate.not_after_ms());
        identity.is_valid(now_ms).then(|| Arc::new(identity))
    }

    /// Replaces the keys. Identities of keys that are gone or changed end; unchanged ones go on.
    pub(super) fn replace(&self, file: &KeyFile) -> Difference {
        let old = self.keys.load_full();
        let mut new = Keys::default();
        let mut difference = Difference::default();
        let new_key = |entry| LoadedKey::new(entry, &self.quotas);
        for entry in &file.keys {
            let held = match old.by_id.get(&*entry.id) {
                Some(held) if *held.entry == *entry => held.clone(),
                Some(_) => {
                    difference.changed.push(entry.id.clone());
                    new_key(entry)
                }
                None => {
                    difference.added.push(entry.id.clone());
                    new_key(entry)
                }
            };
            if let Some(san) = &entry.san {
                new.by_san.insert(san.as_str().into(), entry.id.as_str().into());
            }
            new.by_id.insert(entry.id.as_str().into(), held);
        }
        difference.removed.extend(old.by_id.keys().filter(|id| !new.by_id.contains_key(*id)).map(ToString::to_string));
        let new = Arc::new(new);
        self.keys.store(new.clone());
        // After the new keys are in place: what begins now cannot show an old one.
        for (id, held) in &old.by_id {
            if new.by_id.get(id).is_none_or(|kept| !Arc::ptr_eq(&kept.identity, &held.identity)) {
                held.identity.ended.cancel();
            }
        }
        difference
    }

    /// Ends the identities of entries that have expired.
    pub(super) fn end_expired(&self, now_ms: i64) {
        for held in self.keys.load().by_id.values().filter(|held| !held.is_valid(now_ms)) {
            held.identity.ended.cancel();
        }
    }

    /// Valid entries.
    pub(super) fn len(&self, now_ms: i64) -> usize {
        self.keys.load().by_id.values().filter(|held| held.is_valid(now_ms)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ApiKey, PrincipalLimits, Scope};
    use super::*;

    const NOW: i64 = 1_000;

    fn unlimited() -> Keyring {
        Keyring::new(Quotas::new(PrincipalLimits::NONE))
    }

    fn key(name: &str, expires: Option<&str>) -> (ApiKey, KeyEntry) {
        let key = ApiKey::generate().unwrap();
        let expires = expires.map(|time| time.parse().unwrap());
        let entry = KeyEntry::new(&key, name, &[Scope::CountsRead], jiff::Timestamp::UNIX_EPOCH, expires).unwrap();
        (key, entry)
    }

    #[test]
    fn only_the_whole_key_is_valid_and_only_until_it_expires() {
        let (key, entry) = key("a", Some("1970-01-01T00:00:02Z"));
        let ring = unlimited();
        ring.replace(&KeyFile { keys: vec![entry] });
        assert_eq!(&*ring.verify(key.expose(), NOW).unwrap().principal, "key:a");
        let last = if key.expose().ends_with('a') { "b" } else { "a" };
        let altered = [&key.expose()[..58], last].concat();
        assert!(ring.verify(&altered, NOW).is_none());
        assert!(ring.verify(ApiKey::generate().unwrap().expose(), NOW).is_none());
        assert!(ring.verify(key.expose(), 1_999).is_some() && ring.verify(key.expose(), 2_000).is_none());
        let identity = ring.verify(key.expose(), NOW).unwrap();
        ring.end_expired(1_999);
        assert!(!identity.ended.is_cancelled());
        ring.end_expired(2_000);
        assert!(identity.ended.is_cancelled());
        assert_eq!((ring.len(NOW), ring.len(2_000)), (1, 0));
    }

    #[test]
    fn a_reload_ends_what_changed_and_nothing_else() {
        let ((a, entry_a), (b, entry_b), (c, entry_c)) = (key("same", None), key("same", None), key("c", None));
        let ring = unlimited();
        ring.replace(&KeyFile { keys: vec![entry_a.clone(), entry_b.clone()] });
        let [of_a, of_b] = [&a, &b].map(|key| ring.verify(key.expose(), NOW).unwrap());
        assert_eq!(of_a.principal, of_b.principal, "a key and its successor");
        let narrowed = KeyEntry { scopes: vec![Scope::EventsWrite], ..entry_b.clone() };
        let difference = ring.replace(&KeyFile { keys: vec![entry_a, narrowed, entry_c.clone()] });
        assert_eq!(difference.to_string(), format!("added {}; changed {}", entry_c.id, entry_b.id));
        assert_eq!((difference.added, difference.changed), (vec![entry_c.id.clone()], vec![entry_b.id.clone()]));
        assert!(!of_a.ended.is_cancelled() && of_b.ended.is_cancelled());
        assert!(ring.verify(c.expose(), NOW).is_some());
        assert_eq!(ring.replace(&KeyFile { keys: vec![entry_c] }).removed.len(), 2);
        assert!(of_a.ended.is_cancelled() && ring.verify(a.expose(), NOW).is_none());
    }

    #[test]
    fn a_certificate_is_its_first_name_with_an_entry_until_either_ends() {
        let entry = |san: &str, expires: Option<&str>| {
            let expires = expires.map(|time| time.parse().unwrap());
            let created = jiff::Timestamp::UNIX_EPOCH;
            KeyEntry::of_certificate(san, "sensor", &[Scope::IntakeWrite], created, expires).unwrap()
        };
        let shown = |names: &[&str]| ClientCertificate::of(names, 9_000);
        let (first, second) = (entry("a.example", Some("1970-01-01T00:00:02Z")), entry("spiffe://b", None));
        let ring = unlimited();
        ring.replace(&KeyFile { keys: vec![first.clone(), second.clone()] });
        let both = shown(&["other", "a.example", "spiffe://b"]);
        let principal = |now_ms| ring.of_certificate(&both, now_ms).map(|identity| identity.principal.clone());
        assert_eq!(principal(NOW).as_deref(), Some("cert:a.example"));
        assert_eq!(principal(2_000).as_deref(), Some("cert:spiffe://b"), "the first entry has expired");
        assert_eq!(principal(9_000), None, "the certificate has expired");
        assert!(
            ring.of_certificate(&shown(&["other"]), NOW).is_none() && ring.of_certificate(&shown(&[]), NOW).is_none()
        );
        let identity = ring.of_certificate(&both, NOW).unwrap();
        assert_eq!(*identity.credential, *first.id);
        assert!(!identity.ended.is_cancelled());
        ring.replace(&KeyFile { keys: vec![second] });
        assert!(identity.ended.is_cancelled(), "its entry is gone");
    }

    #[test]
    fn keys_of_a_principal_have_limits_of_their_own_and_meters_in_common() {
        let ((a, mut entry_a), (b, entry_b), (c, entry_c)) = (key("same", None), key("same", None), key("c", None));
        let ring = Keyring::new(Quotas::new(PrincipalLimits { max_request_rate: 2, ..PrincipalLimits::NONE }));
        entry_a.limits.max_request_rate = Some(4);
        ring.replace(&KeyFile { keys: vec![entry_a.clone(), entry_b.clone(), entry_c] });
        let admitted = |key: &ApiKey| {
            let identity = ring.verify(key.expose(), NOW).unwrap();
            let quota = identity.quota.as_ref().unwrap();
            std::iter::repeat_with(|| quota.admit_at(0, 0, 0)).take(10).take_while(Result::is_ok).count()
        };
        assert_eq!(admitted(&a), 4);
        assert_eq!((admitted(&b), admitted(&c)), (0, 2), "a and b are one principal");
        // A reload that changes a key keeps what its principal has used.
        entry_a.limits.max_request_rate = Some(0);
        let narrowed = KeyEntry { scopes: vec![Scope::EventsWrite], ..entry_b };
        ring.replace(&KeyFile { keys: vec![entry_a, narrowed] });
        assert!(ring.verify(a.expose(), NOW).unwrap().quota.is_none());
        assert_eq!(admitted(&b), 0);
    }
}
