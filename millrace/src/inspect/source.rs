//! Access to the log for the tools: Kafka, the process that has the embedded directory open, or the directory itself.

use millrace_contracts::Names;
use millrace_log::{Log, LogError};
use millrace_service::auth::ApiKey;

use super::{Line, Remote, RemoteError, TailRequest, TopicLine};
use crate::settings::{Engine, Settings};
use crate::start::open_log;

/// Access to the log.
#[derive(Debug)]
pub(crate) enum Source {
    /// In this process.
    Log(Log),
    /// Through a running process.
    Running(Remote),
}

/// Why there is no access.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// The log.
    #[error("{0}")]
    Log(#[from] LogError),
    /// The running process.
    #[error("{0}")]
    Remote(#[from] RemoteError),
    /// No running process, and the directory cannot be opened either.
    #[error("{remote}, and the directory cannot be read: {log}")]
    Neither {
        /// The problem of the admin listener.
        remote: RemoteError,
        /// The problem of the directory.
        log: LogError,
    },
}

impl Source {
    /// Prefers a running process over the directory.
    pub(crate) async fn find(settings: &Settings, names: &Names, key: Option<&ApiKey>) -> Result<Self, SourceError> {
        match settings.engine {
            Engine::Kafka => Ok(Self::Log(open_log(settings, names).await?)),
            Engine::Embedded => {
                let remote = Remote::at(settings.command.admin, key);
                let Err(unavailable) = remote.topics().await else { return Ok(Self::Running(remote)) };
                // Inspection must not create a directory.
                if !settings.embedded.directory.is_dir() {
                    let why = format!("{} does not exist yet", settings.embedded.directory.display());
                    return Err(SourceError::Neither { remote: unavailable, log: LogError::refused(why) });
                }
                let opened = open_log(settings, names).await;
                opened.map(Self::Log).map_err(|log| SourceError::Neither { remote: unavailable, log })
            }
        }
    }

    /// Every topic with its offsets.
    pub(crate) async fn topics(&self) -> Result<Vec<TopicLine>, SourceError> {
        match self {
            Self::Log(log) => Ok(log.describe().await?.iter().map(TopicLine::from).collect()),
            Self::Running(remote) => Ok(remote.topics().await?),
        }
    }

    /// Reads a topic; every record goes to `emit` until it returns `false`.
    pub(crate) async fn tail(
        &self,
        request: TailRequest,
        mut emit: impl FnMut(Line) -> bool + Send + 'static,
    ) -> Result<(), SourceError> {
        match self {
            Self::Running(remote) => Ok(remote.tail(&request, emit).await?),
            Self::Log(log) => {
                let (log, infos) = (log.clone(), log.describe().await?);
                let read =
                    tokio::task::spawn_blocking(move || request.read(&log, &infos, |line| line.is_none_or(&mut emit)));
                Ok(read.await.map_err(|e| LogError::unavailable(format!("the reader failed: {e}")))??)
            }
        }
    }
}
