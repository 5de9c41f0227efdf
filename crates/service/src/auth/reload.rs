//! Reading the files of authentication, at start and then each second.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use metrics::{counter, gauge};
use millrace_base::Clock;
use millrace_contracts::metric;
use tokio_util::sync::CancellationToken;

use super::authenticator::Inner;
use super::key_file::read_bytes;
use super::keyring::Keyring;
use super::{ApiKey, AuthConfig, AuthMode, Authenticator, KeyFile, KeyFileError};
use crate::health::{Component, Health};

/// Between two looks at the files: a change takes effect within two.
const INTERVAL: Duration = Duration::from_secs(1);

/// The files as they were read last.
struct Files {
    config: AuthConfig,
    keys: Vec<u8>,
    /// The problem that was reported last.
    problem: Option<String>,
}

impl Authenticator {
    /// Reads the files of the settings and follows them until `stop` is canceled. A file that breaks later changes
    /// nothing: the old keys stay, and the component `auth` of `health` has a warning.
    ///
    /// # Errors
    /// A file is missing or broken.
    pub fn start(config: &AuthConfig, health: &Health, stop: CancellationToken) -> Result<Self, KeyFileError> {
        if config.mode == AuthMode::Off {
            return Ok(Self::off());
        }
        let mut files = Files { config: config.clone(), keys: Vec::new(), problem: None };
        let (keyring, outgoing) = (Keyring::default(), ArcSwapOption::empty());
        let inner = Inner { keys: Some(keyring), outgoing, clock: Clock::system() };
        files.read(&inner)?;
        let component = health.component("auth");
        component.ready();
        let auth = Self(Arc::new(inner));
        let followed = auth.clone();
        tokio::spawn(stop.run_until_cancelled_owned(follow(followed, files, component)));
        Ok(auth)
    }

    /// Checks that the files of the settings can be used.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn check(config: &AuthConfig) -> Result<(), KeyFileError> {
        if config.mode == AuthMode::Off {
            return Ok(());
        }
        KeyFile::read(&config.keys_file)?;
        outgoing(&config.process_key_file).map(drop)
    }
}

async fn follow(auth: Authenticator, mut files: Files, component: Component) {
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        let inner = auth.0.clone();
        let read = tokio::task::spawn_blocking(move || {
            let outcome = files.read(&inner);
            (files, outcome)
        });
        let Ok((back, outcome)) = read.await else { return };
        files = back;
        gauge!(metric::AUTH_STALE.name).set(if outcome.is_err() { 1.0 } else { 0.0 });
        let problem = outcome.err().map(|error| error.to_string());
        if problem != files.problem {
            if let Some(problem) = &problem {
                tracing::error!(problem, "the keys cannot be read; the last ones that could stay valid");
                component.warn(format!("the last keys that could be read stay valid: {problem}"));
            } else {
                tracing::info!("the keys can be read again");
                component.clear_warning();
            }
            files.problem = problem;
        }
    }
}

impl Files {
    /// Reads both files and applies what changed.
    fn read(&mut self, inner: &Inner) -> Result<(), KeyFileError> {
        let now_ms = inner.clock.now_ms();
        let Some(keyring) = &inner.keys else { return Ok(()) };
        keyring.end_expired(now_ms);
        gauge!(metric::AUTH_KEYS.name).set(keyring.len(now_ms) as f64);
        let key = outgoing(&self.config.process_key_file)?;
        inner.outgoing.store(key.map(Arc::new));
        let bytes = read_bytes(&self.config.keys_file)?;
        // Also when it is empty at start.
        if bytes == self.keys && !bytes.is_empty() {
            return Ok(());
        }
        let file = KeyFile::parse(&self.config.keys_file, &bytes)?;
        let difference = keyring.replace(&file);
        self.keys = bytes;
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
fn outgoing(path: &Path) -> Result<Option<HeaderValue>, KeyFileError> {
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let bytes = read_bytes(path)?;
    let key = str::from_utf8(&bytes).ok().and_then(|text| ApiKey::parse(text.trim()));
    let invalid =
        || KeyFileError::Invalid { path: path.to_owned(), problem: "its content is not a key of Millrace".into() };
    key.map(|key| key.bearer()).ok_or_else(invalid).map(Some)
}
