//! All settings of the process: the crates' own sections put together, and what only holds between them.

mod check;
mod obsolete;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;

use millrace_base::Span;
use millrace_contracts::{EventWindow, Names};
use millrace_log::{EmbeddedConfig, KafkaConfig};
use millrace_materializer::journal::JournalConfig;
use millrace_service::config::{self, ConfigProblem, Schema};
use millrace_service::telemetry::TelemetryConfig;
use millrace_store::{PostgresConfig, RedisConfig};
use serde::Deserialize;

use crate::cli::Layers;

/// The annotated default file: every key, its meaning, its bounds.
pub(crate) const DEFAULT: &str = include_str!("../default.toml");

/// The keys of the settings, and those of earlier versions.
const SCHEMA: Schema<'_> = Schema { defaults: DEFAULT, renamed: obsolete::RENAMED, removed: obsolete::REMOVED };

/// The path of the file, in a variable that has the prefix of settings but is none.
const FILE_VARIABLE: &str = "MILLRACE_CONFIG";

/// Everything that can be set. `default.toml` documents each key.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// What stands before the names of topics, groups, transactional ids and Redis keys.
    pub(crate) prefix: String,
    /// Where the log lives.
    pub(crate) engine: Engine,
    /// This process's name among the instances of its role, which keeps its partitions over a restart; empty means host name
    /// and admin port, and that nothing is kept.
    pub(crate) instance: String,
    /// Allows listeners off loopback, although anyone who reaches them may write and read.
    pub(crate) insecure_listen: bool,
    /// Longest shutdown.
    pub(crate) shutdown_grace: Span,
    pub(crate) kafka: KafkaConfig,
    pub(crate) embedded: EmbeddedConfig,
    pub(crate) redis: RedisConfig,
    pub(crate) postgres: PostgresConfig,
    pub(crate) analytics: EventWindow,
    pub(crate) topics: millrace_command::TopicsConfig,
    pub(crate) command: millrace_command::Config,
    pub(crate) delivery: millrace_delivery::Config,
    pub(crate) processor: millrace_processor::Config,
    pub(crate) materializer: millrace_materializer::Config,
    pub(crate) query: millrace_query::Config,
    pub(crate) journal: JournalConfig,
    pub(crate) telemetry: TelemetryConfig,
}

/// Where the log lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Engine {
    /// In one directory of this machine, for one process.
    Embedded,
    /// In Apache Kafka, with Redis and PostgreSQL as read models.
    Kafka,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Kafka => "kafka",
        })
    }
}

impl Settings {
    /// Puts the layers together and checks the result: all problems at once.
    pub(crate) fn load(layers: &Layers, environment: Vec<(String, String)>) -> Result<Self, Vec<ConfigProblem>> {
        let environment = environment.into_iter().filter(|(name, _)| name != FILE_VARIABLE);
        let settings: Self =
            config::load_checked(&SCHEMA, layers.config.as_deref(), environment, &layers.set, check::violations)?;
        Ok(settings.derive())
    }

    /// The names that carry the prefix.
    pub(crate) fn names(&self) -> Names {
        Names::new(&self.prefix).expect("the prefix was checked when the settings were loaded")
    }

    /// Fills in the settings that follow from others.
    fn derive(mut self) -> Self {
        self.command.event_window = self.analytics;
        self.command.topics = self.topics.clone();
        self.processor.event_window = self.analytics;
        if self.engine == Engine::Embedded && self.processor.scratch_directory.as_os_str().is_empty() {
            self.processor.scratch_directory = self.embedded.directory.join("scratch");
        }
        self
    }

    /// This process's name among the instances of its role: as set, else the host and the port of its admin listener,
    /// which are the same after a restart and no other process's.
    pub(crate) fn instance(&self, admin: SocketAddr) -> String {
        if !self.instance.is_empty() {
            return self.instance.clone();
        }
        let host = rustix::system::uname();
        format!("{}-{}", host.nodename().to_string_lossy(), admin.port())
    }
}
