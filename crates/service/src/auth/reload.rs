//! Reading the files of authentication, at start and then each second.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use metrics::{counter, gauge};
use millrace_base::Clock;
use millrace_contracts::{AuditOutcome, metric};
use tokio_util::sync::CancellationToken;

use super::authenticator::Inner;
use super::failures::Failures;
use super::keyring::Keyring;
use super::rate::Quotas;
use super::{ApiKey, AuthConfig, AuthMode, Authenticator, KeyFile, jwt};
use crate::audit::{Act, Audit};
use crate::files::{self, FileError, Reading};
use crate::health::Health;

/// The files as they were read last.
struct Files {
    config: AuthConfig,
    keys: Option<Vec<u8>>,
}

impl Authenticator {
    /// Reads the files of the settings and follows them until `stop` is canceled. A file that breaks later changes
    /// nothing: the old keys stay, and the component `auth` of `health` has a warning.
    ///
    /// # Errors
    /// A file is missing or broken.
    pub fn start(config: &AuthConfig, health: &Health, stop: CancellationToken) -> Result<Self, FileError> {
        if config.mode == AuthMode::Off {
            return Ok(Self::off_for(config.allowed_hosts.iter().cloned().collect()));
        }
        let mut files = Files { config: config.clone(), keys: None };
        let quotas = Quotas::new(config.limits);
        let (keyring, outgoing) = (Keyring::new(quotas.clone()), ArcSwapOption::empty());
        let audit = Audit::default();
        let tokens = jwt::start(&config.jwt, quotas, &audit, health, &stop)?;
        let (failures, allowed_hosts) = (Failures::new(config.max_failure_rate_per_ip), Arc::default());
        let clock = Clock::system();
        let inner = Inner { keys: Some(keyring), tokens, outgoing, allowed_hosts, audit, clock, failures };
        files.read(&inner)?;
        let component = health.component("auth");
        component.ready();
        let auth = Self(Arc::new(inner));
        let inner = auth.0.clone();
        let reading = Reading::new("the keys", component, gauge!(metric::AUTH_STALE.name));
        let follow = files::follow(reading, move || files.read(&inner));
        tokio::spawn(stop.run_until_cancelled_owned(follow));
        Ok(auth)
    }

    /// Checks that the files of the settings can be used.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn check(config: &AuthConfig) -> Result<(), FileError> {
        if config.mode == AuthMode::Off {
            return Ok(());
        }
        KeyFile::read(&config.keys_file)?;
        jwt::check(&config.jwt)?;
        outgoing(&config.process_key_file).map(drop)
    }
}

impl Files {
    /// Reads both files and applies what changed. Each on its own: a broken one must not keep a key valid that the other
    /// revokes.
    fn read(&mut self, inner: &Inner) -> Result<(), FileError> {
        let Some(keyring) = &inner.keys else { return Ok(()) };
        let keys = self.read_keys(keyring, &inner.audit, inner.clock.now_ms());
        let key = outgoing(&self.config.process_key_file)?;
        inner.outgoing.store(key.map(Arc::new));
        keys
    }

    fn read_keys(&mut self, keyring: &Keyring, audit: &Audit, now_ms: i64) -> Result<(), FileError> {
        keyring.end_expired(now_ms);
        gauge!(metric::AUTH_KEYS.name).set(keyring.len(now_ms) as f64);
        let bytes = files::read(&self.config.keys_file)?;
        if self.keys.as_ref() == Some(&bytes) {
            return Ok(());
        }
        let file = KeyFile::parse(&self.config.keys_file, &bytes)?;
        let difference = keyring.replace(&file);
        let first = self.keys.replace(bytes).is_none();
        gauge!(metric::AUTH_KEYS.name).set(keyring.len(now_ms) as f64);
        let (added, changed, removed) = (&difference.added, &difference.changed, &difference.removed);
        if !(added.is_empty() && changed.is_empty() && removed.is_empty()) {
            counter!(metric::AUTH_RELOADS.name).increment(1);
            tracing::info!(?added, ?changed, ?removed, keys = file.keys.len(), "read the keys");
            // At start they are those of the last run: nobody has changed them now.
            if !first {
                audit.end(Act::of_process("keys.reload", &difference.to_string()), AuditOutcome::Done, "");
            }
        }
        Ok(())
    }
}

/// The header that this process sends to others, from the file with its key.
fn outgoing(path: &Path) -> Result<Option<HeaderValue>, FileError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let bytes = files::read(path)?;
    let key = str::from_utf8(&bytes).ok().and_then(|text| ApiKey::parse(text.trim()));
    let invalid = || FileError::invalid(path, "the content is not a key of Millrace");
    key.map(|key| key.bearer()).ok_or_else(invalid).map(Some)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::{KeyEntry, PrincipalLimits, Scope};
    use super::*;

    #[test]
    fn a_broken_key_of_the_process_keeps_no_revoked_key_valid() {
        let directory = tempfile::tempdir().unwrap();
        let (keys_file, process_key_file) = (directory.path().join("keys.toml"), directory.path().join("process.key"));
        let key = ApiKey::generate().unwrap();
        let entry = KeyEntry::new(&key, "a", &[Scope::Admin], jiff::Timestamp::UNIX_EPOCH, None).unwrap();
        let write = |keys: Vec<KeyEntry>| {
            KeyFile::change(&keys_file, |file| {
                file.keys = keys;
                Ok(())
            })
        };
        write(vec![entry]).unwrap();
        fs::write(&process_key_file, key.expose()).unwrap();
        let config = AuthConfig {
            mode: AuthMode::Keys,
            allow_off_beyond_loopback: false,
            allowed_hosts: Vec::new(),
            keys_file: keys_file.clone(),
            process_key_file,
            jwt: jwt::tests::config(),
            max_failure_rate_per_ip: 0,
            limits: PrincipalLimits::NONE,
        };
        let mut files = Files { config, keys: None };
        let (keyring, failures) = (Keyring::new(Quotas::new(PrincipalLimits::NONE)), Failures::new(0));
        let (outgoing, allowed_hosts, clock) = (ArcSwapOption::empty(), Arc::default(), Clock::system());
        let audit = Audit::default();
        let inner = Inner { keys: Some(keyring), tokens: None, outgoing, allowed_hosts, audit, clock, failures };
        let valid = || inner.keys.as_ref().unwrap().verify(key.expose(), 0).is_some();
        files.read(&inner).unwrap();
        assert!(valid());
        fs::write(&files.config.process_key_file, "no key").unwrap();
        write(Vec::new()).unwrap();
        assert!(files.read(&inner).is_err(), "the broken file is reported");
        assert!(!valid(), "and the other one is read all the same");
    }
}
