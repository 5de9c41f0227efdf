//! Reading the files of authentication, at start and then each second.

use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use metrics::{counter, gauge};
use millrace_base::Clock;
use millrace_contracts::metric;
use tokio_util::sync::CancellationToken;

use super::authenticator::Inner;
use super::keyring::Keyring;
use super::{ApiKey, AuthConfig, AuthMode, Authenticator, KeyFile};
use crate::files::{self, FileError};
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
            return Ok(Self::off());
        }
        let mut files = Files { config: config.clone(), keys: None };
        let (keyring, outgoing) = (Keyring::default(), ArcSwapOption::empty());
        let inner = Inner { keys: Some(keyring), outgoing, clock: Clock::system() };
        files.read(&inner)?;
        let component = health.component("auth");
        component.ready();
        let auth = Self(Arc::new(inner));
        let inner = auth.0.clone();
        let stale = gauge!(metric::AUTH_STALE.name);
        let follow = files::follow("the keys", component, stale, move || files.read(&inner));
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
        outgoing(&config.process_key_file).map(drop)
    }
}

impl Files {
    /// Reads both files and applies what changed.
    fn read(&mut self, inner: &Inner) -> Result<(), FileError> {
        let now_ms = inner.clock.now_ms();
        let Some(keyring) = &inner.keys else { return Ok(()) };
        keyring.end_expired(now_ms);
        gauge!(metric::AUTH_KEYS.name).set(keyring.len(now_ms) as f64);
        let key = outgoing(&self.config.process_key_file)?;
        inner.outgoing.store(key.map(Arc::new));
        let bytes = files::read(&self.config.keys_file)?;
        if self.keys.as_ref() == Some(&bytes) {
            return Ok(());
        }
        let file = KeyFile::parse(&self.config.keys_file, &bytes)?;
        let difference = keyring.replace(&file);
        self.keys = Some(bytes);
        gauge!(metric::AUTH_KEYS.name).set(keyring.len(now_ms) as f64);
        let (added, changed, removed) = (&difference.added, &difference.changed, &difference.removed);
        if !(added.is_empty() && changed.is_empty() && removed.is_empty()) {
            counter!(metric::AUTH_RELOADS.name).increment(1);
            tracing::info!(?added, ?changed, ?removed, keys = file.keys.len(), "read the keys");
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
