//! The command line: subcommands and their options, a file for each family.

mod audit;
mod bulk;
mod keys;
mod load;
mod log;
mod messages;
mod settings;
mod tcp;
mod topics;
mod values;
mod views;
mod webhooks;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub(crate) use audit::Audit;
pub(crate) use bulk::{Export, Import};
pub(crate) use keys::{CreateKey, Keys, KeysFile, ListKeys, RevokeKey};
pub(crate) use load::Load;
pub(crate) use log::{Doctor, Tail, Topics};
pub(crate) use messages::{Consume, Publish};
pub(crate) use settings::CheckConfig;
pub(crate) use tcp::{Journal, JournalRange, JournalVerify, Place, Send};
pub(crate) use topics::{Manage, One, Subscription, SubscriptionPath, Topic};
pub(crate) use views::{Rebuild, Store, Verify};
pub(crate) use webhooks::VerifyWebhook;

/// Events in over HTTP, exact hourly counts out.
#[derive(Debug, Parser)]
#[command(name = "millrace", version, propagate_version = true, max_term_width = 110)]
pub(crate) struct Cli {
    /// The layers of settings.
    #[command(flatten)]
    pub(crate) layers: Layers,
    /// The subcommand.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The layers of settings: annotated defaults < file < environment (`MILLRACE_QUERY__LISTEN`) < flags.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Layers {
    /// Settings file in TOML; `millrace check-config --print-default` prints a template
    #[arg(long, global = true, env = "MILLRACE_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// One setting, such as `--set query.listen=127.0.0.1:8092`; repeatable
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
#[expect(clippy::enum_variant_names, reason = "the name of the command service")]
pub(crate) enum Command {
    /// Run all services in this process, on either engine
    Up,
    /// Run the command service: accepts events, responds once they are durable (Kafka only)
    Command,
    /// Run the processor: counts events exactly once (Kafka only)
    Processor,
    /// Run the materializer: writes counts to Redis and the archive (Kafka only)
    Materializer,
    /// Run the query service: serves the counts of hours (Kafka only)
    Query,
    /// Run the coordinators of topics and subscriptions (Kafka only)
    Delivery,
    /// Check all settings and report every problem; starts nothing
    CheckConfig(CheckConfig),
    /// Check every dependency and suggest what to do
    Doctor(Doctor),
    /// List the topics of the log
    Topics(Topics),
    /// Print the records of a topic, decoded
    Tail(Tail),
    /// Print the audit log: who did what, when, from where, and how it ended
    Audit(Audit),
    /// Generate load and compare every count with the expected one
    Load(Load),
    /// Send the events of a file, each once; resumes after a kill
    Import(Import),
    /// Write the counts of hours to a file
    Export(Export),
    /// Create, list, describe or delete topics
    Topic {
        /// What to do
        #[command(subcommand)]
        command: Topic,
    },
    /// Create, list, describe, delete, seek, suspend or resume subscriptions
    Subscription {
        /// What to do
        #[command(subcommand)]
        command: Subscription,
    },
    /// Publish a message to a topic
    Publish(Publish),
    /// Print the messages of a subscription, and acknowledge them
    Consume(Consume),
    /// Check the signature of a request that an endpoint received
    VerifyWebhook(VerifyWebhook),
    /// Send the lines of files as messages over TCP, each until it is acknowledged
    Send(Send),
    /// Create, list and revoke API keys; services notice within two seconds
    Keys {
        /// What to do
        #[command(subcommand)]
        command: Keys,
    },
    /// Read or check the files of a journal
    Journal {
        /// What to do
        #[command(subcommand)]
        command: Journal,
    },
    /// Compare the log with the read models, hour by hour, and report every difference
    Verify(Verify),
    /// Empty a read model and rebuild it from the log while reads continue
    Rebuild(Rebuild),
    /// Print a completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one per subcommand into a folder
    Man {
        /// Output folder
        #[arg(long, value_name = "FOLDER")]
        to: Option<PathBuf>,
    },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn accepts_settings_before_and_after_the_subcommand() {
        let cli = Cli::try_parse_from(["millrace", "--set", "a=1", "topics", "--json"]).unwrap();
        assert_eq!(cli.layers.set, ["a=1"]);
        let cli = Cli::try_parse_from(["millrace", "up", "--set", "a=1", "--set", "b=2"]).unwrap();
        assert_eq!(cli.layers.set, ["a=1", "b=2"]);
    }
}
