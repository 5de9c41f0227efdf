//! Files of keys and certificates, which change while the process runs.

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use metrics::Gauge;

use crate::health::Component;

/// Largest such file.
const MAX_BYTES: u64 = 64 << 20;
/// Between two looks at a file: a change takes effect within two.
const INTERVAL: Duration = Duration::from_secs(1);

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// Its content is not what it should be.
    #[error("{path}: {problem}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The problem, without any content of the file but names.
        problem: String,
    },
}

impl FileError {
    pub(crate) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn invalid(path: &Path, problem: impl Display) -> Self {
        Self::Invalid { path: path.to_owned(), problem: problem.to_string() }
    }
}

/// Reads a file. Whoever may write it may do everything, so nobody but its owner may.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let file = File::open(path).map_err(|error| FileError::io(path, error))?;
    let metadata = file.metadata().map_err(|error| FileError::io(path, error))?;
    if metadata.permissions().mode() & 0o022 != 0 {
        return Err(FileError::invalid(path, "others may write it; chmod 600 ends that"));
    }
    if metadata.len() > MAX_BYTES {
        return Err(FileError::invalid(path, "is larger than 64 MiB"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(|error| FileError::io(path, error))?;
    Ok(bytes)
}

/// Reads a file with a private key, and logs a warning if everybody may read it.
///
/// # Errors
/// The file cannot be read, or others may write it.
pub fn read_private(path: &Path) -> Result<Vec<u8>, FileError> {
    let bytes = read(path)?;
    warn_if_exposed(path);
    Ok(bytes)
}

/// Logs a warning if everybody may read a file with a private key. It is not refused: volumes of secrets are often mounted so.
pub(crate) fn warn_if_exposed(path: &Path) {
    if is_exposed(path) {
        let file = path.display();
        tracing::warn!(%file, "everybody on this machine may read this private key; chmod 600 ends that");
    }
}

/// Its group may read it, which is how a service account shares a file.
fn is_exposed(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0)
}

/// Reports whether what is read again and again can be read: once for each change.
pub(crate) struct Reading {
    what: &'static str,
    component: Component,
    stale: Gauge,
    problem: Option<String>,
}

impl Reading {
    /// `what` can be read. While it cannot, the component has a warning and `stale` is 1.
    pub(crate) fn new(what: &'static str, component: Component, stale: Gauge) -> Self {
        stale.set(0.0);
        Self { what, component, stale, problem: None }
    }

    /// Reports how a read went.
    pub(crate) fn report(&mut self, outcome: Result<(), impl Display>) {
        self.stale.set(if outcome.is_err() { 1.0 } else { 0.0 });
        let problem = outcome.err().map(|error| error.to_string());
        if problem == self.problem {
            return;
        }
        let what = self.what;
        if let Some(problem) = &problem {
            tracing::error!(problem, "cannot read {what}; what was read last stays in use");
            self.component.warn(format!("cannot read {what}; what was read last stays in use: {problem}"));
        } else {
            tracing::info!("can read {what} again");
            self.component.clear_warning();
        }
        self.problem = problem;
    }
}

/// Calls `read` each second, which reads files and applies what changed. While it fails, what was read last stays in use.
pub(crate) async fn follow(mut reading: Reading, read: impl FnMut() -> Result<(), FileError> + Send + 'static) {
    let mut read = read;
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        let blocking = tokio::task::spawn_blocking(move || {
            let outcome = read();
            (read, outcome)
        });
        let Ok((back, outcome)) = blocking.await else { return };
        read = back;
        reading.report(outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};

    use super::*;

    #[test]
    fn what_others_may_write_is_refused_and_what_everybody_may_read_is_exposed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "secret").unwrap();
        for (mode, refused, exposed) in [
            (0o600, false, false),
            (0o640, false, false),
            (0o644, false, true),
            (0o620, true, false),
            (0o602, true, false),
        ] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert_eq!((read_private(&path).is_err(), is_exposed(&path)), (refused, exposed), "{mode:o}");
        }
    }
}
