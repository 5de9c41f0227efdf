//! All settings of the process: the sections of the crates, the rules between them ([`check`]), and the values that follow from
//! them ([`derived`]).

mod check;
mod derived;
mod obsolete;
#[cfg(test)]
mod tests;

use std::fmt;

use millrace_base::Span;
use millrace_contracts::{EventWindow, Names};
use millrace_log::{EmbeddedConfig, KafkaConfig};
use millrace_materializer::journal::JournalConfig;
use millrace_service::auth::AuthConfig;
use millrace_service::config::{self, ConfigProblem, Schema};
use millrace_service::cors::CorsConfig;
use millrace_service::net::{ProxyConfig, TlsConfig};
use millrace_service::telemetry::TelemetryConfig;
use millrace_store::{PostgresConfig, RedisConfig};
use serde::Deserialize;

use crate::cli::Layers;

/// The annotated default file: every key, its meaning, its bounds.
pub(crate) const DEFAULT: &str = include_str!("../default.toml");

/// The keys of the settings, and those of earlier versions.
const SCHEMA: Schema<'_> =
    Schema { defaults: DEFAULT, renamed: obsolete::RENAMED, removed: obsolete::REMOVED, reserved: RESERVED };

/// The variables of the tools, of builds with fail points, and of the scripts around this program.
const RESERVED: &[&str] =
    &["CONFIG", "KEY", "KEY_FILE", "CA_FILE", "ALLOW_CLEAR_KEY", "CRASH", "SEED", "BIN", "KAFKA_HOME", "TEST_*"];

/// The settings. `default.toml` documents each key.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Prefix of the names of topics, groups, transactional ids and Redis keys.
    pub(crate) prefix: String,
    /// Engine of the log.
    pub(crate) engine: Engine,
    /// Stable name of this process among the instances of its role, with which it resumes its partitions after a restart; empty:
    /// host name and admin port, and it gives its partitions up.
    pub(crate) instance: String,
    /// Longest shutdown.
    pub(crate) shutdown_grace: Span,
    pub(crate) auth: AuthConfig,
    pub(crate) tls: TlsConfig,
    pub(crate) proxies: ProxyConfig,
    pub(crate) cors: CorsConfig,
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

/// Engine of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Engine {
    /// One directory of this machine, for one process.
    Embedded,
    /// Apache Kafka, with Redis and PostgreSQL as read models.
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
    /// Merges the layers, checks the result and derives the rest. Returns all problems at once.
    pub(crate) fn load(layers: &Layers, environment: Vec<(String, String)>) -> Result<Self, Vec<ConfigProblem>> {
        let (file, environment) = (layers.config.as_deref(), environment.into_iter());
        let settings: Self = config::load_checked(&SCHEMA, file, environment, &layers.set, check::violations)?;
        Ok(settings.derive())
    }

    /// The names that carry the prefix.
    pub(crate) fn names(&self) -> Names {
        Names::new(&self.prefix).expect("loading checks the prefix")
    }
}
