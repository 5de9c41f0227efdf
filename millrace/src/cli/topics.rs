//! Options of `topic` and `subscription`.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Subcommand};
use millrace_base::Span;
use millrace_contracts::topics::Name;
use serde_json::Value;

use super::values::{duration, name, span, time};
use crate::client::{KeySource, Target};

/// Where the requests go, and for how long they are repeated.
#[derive(Debug, Clone, Args)]
pub(crate) struct Server {
    #[command(flatten)]
    pub(crate) key: KeySource,
    /// Command service; default: from the settings
    #[arg(long, value_name = "URL")]
    pub(crate) command: Option<Target>,
    /// Longest wait for a response
    #[arg(long, default_value = "15s", value_parser = span)]
    pub(crate) timeout: Duration,
}

impl Server {
    /// The service: that of the option, or the one with this listener on this machine, which encrypts or not.
    ///
    /// # Errors
    /// A key or authorities that cannot be read, or a key that would be readable on its way.
    pub(crate) fn target(&self, listen: SocketAddr, https: bool) -> anyhow::Result<Target> {
        let access = self.key.access()?;
        match &self.command {
            Some(target) => Ok(target.clone().with(&access)?),
            None => Ok(Target::of_listener(listen, https, &access)),
        }
    }
}

/// What `topic`, `subscription` and `publish` share.
#[derive(Debug, Clone, Args)]
pub(crate) struct Manage {
    #[command(flatten)]
    pub(crate) server: Server,
    /// How long to retry while the service is unavailable
    #[arg(long, default_value = "30s", value_parser = span)]
    pub(crate) patience: Duration,
    /// JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// The subcommands of `topic`.
#[derive(Debug, Clone, Subcommand)]
#[command(after_long_help = EXIT_CODES)]
pub(crate) enum Topic {
    /// Create a topic; one of the same settings is fine
    Create {
        /// Its name
        #[arg(value_parser = name)]
        topic: Name,
        /// How long messages are kept
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        retention: Option<Span>,
        /// How much later than published they are handed out
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        delay: Option<Span>,
        /// Largest message in bytes
        #[arg(long, value_name = "BYTES")]
        max_message_bytes: Option<u64>,
        /// A text for people
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
        #[command(flatten)]
        manage: Manage,
    },
    /// List topics by name
    List {
        /// Only names that begin with this
        #[arg(long, default_value = "")]
        prefix: String,
        #[command(flatten)]
        manage: Manage,
    },
    /// Print everything about a topic
    Describe {
        /// Its name
        #[arg(value_parser = name)]
        topic: Name,
        #[command(flatten)]
        manage: Manage,
    },
    /// Delete a topic with its messages and subscriptions
    Delete {
        /// Its name
        #[arg(value_parser = name)]
        topic: Name,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        manage: Manage,
    },
}

/// The subcommands of `subscription`.
#[derive(Debug, Clone, Subcommand)]
#[command(after_long_help = EXIT_CODES)]
pub(crate) enum Subscription {
    /// Create a subscription; one of the same settings is fine
    Create {
        /// Topic and name
        #[arg(value_name = "TOPIC/NAME")]
        path: SubscriptionPath,
        /// Where it begins: latest, earliest, an offset or a time
        #[arg(long, value_name = "WHERE", default_value = "latest")]
        start: Start,
        /// Only messages that match, such as '{"exact":{"kind":"a"}}'
        #[arg(long, value_name = "JSON", value_parser = json)]
        filter: Option<Value>,
        /// The lease of readers that give none
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        ack_deadline: Option<Span>,
        /// One message of a key after the other
        #[arg(long)]
        order_by_key: bool,
        /// Attempts after which a message becomes a dead letter
        #[arg(long, value_name = "N")]
        max_attempts: Option<u32>,
        #[command(flatten)]
        manage: Manage,
    },
    /// List the subscriptions of a topic by name
    List {
        /// The topic
        #[arg(value_parser = name)]
        topic: Name,
        /// Only names that begin with this
        #[arg(long, default_value = "")]
        prefix: String,
        #[command(flatten)]
        manage: Manage,
    },
    /// Print everything about a subscription
    Describe(One),
    /// Delete a subscription
    Delete {
        #[command(flatten)]
        one: One,
        /// Do not ask for confirmation
        #[arg(long)]
        yes: bool,
    },
    /// Set the position; drops all retries and leases
    Seek {
        /// Topic and name
        #[arg(value_name = "TOPIC/NAME")]
        path: SubscriptionPath,
        /// Where to: latest, earliest, an offset or a time
        #[arg(value_name = "WHERE")]
        to: Start,
        #[command(flatten)]
        manage: Manage,
    },
    /// Hand out nothing until it is resumed; the position stays
    Suspend(One),
    /// Hand out messages again
    Resume(One),
    /// Send a signed sample to the endpoint; print the request and the answer
    Test(One),
    /// Print what became of a message, and why
    Explain {
        /// Topic and name
        #[arg(value_name = "TOPIC/NAME")]
        path: SubscriptionPath,
        /// The message's offset
        #[arg(long)]
        offset: u64,
        #[command(flatten)]
        manage: Manage,
    },
}

/// A subscription that exists.
#[derive(Debug, Clone, Args)]
pub(crate) struct One {
    /// Topic and name
    #[arg(value_name = "TOPIC/NAME")]
    pub(crate) path: SubscriptionPath,
    #[command(flatten)]
    pub(crate) manage: Manage,
}

/// Exit codes of all commands of topics.
pub(super) const EXIT_CODES: &str = "\
Exits with 0 when it is done, 1 if the service refuses it, 75 if the service could not be reached, was unavailable or did not
answer for as long as --patience: the same command again may succeed.";

/// A subscription's topic and name: no name has a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SubscriptionPath {
    pub(crate) topic: Name,
    pub(crate) subscription: Name,
}

impl FromStr for SubscriptionPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (topic, subscription) = text.split_once('/').ok_or("must be TOPIC/SUBSCRIPTION")?;
        let name = |text| name(text).map_err(|error| error.to_string());
        Ok(Self { topic: name(topic)?, subscription: name(subscription)? })
    }
}

impl fmt::Display for SubscriptionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.subscription)
    }
}

/// Where a subscription begins or goes, as the API reads it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Start(pub(crate) Value);

impl FromStr for Start {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if matches!(text, "latest" | "earliest") {
            return Ok(Self(text.into()));
        }
        if let Ok(offset) = text.parse::<u64>() {
            return Ok(Self(serde_json::json!({ "offset": offset })));
        }
        let ms = time(text).map_err(|_| "must be latest, earliest, an offset or a time")?;
        Ok(Self(serde_json::json!({ "at": ms })))
    }
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("must be JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_starts() {
        let path: SubscriptionPath = "orders/worker".parse().unwrap();
        assert_eq!((path.topic.as_str(), path.subscription.as_str()), ("orders", "worker"));
        for bad in ["orders", "orders/", "/worker", "a/b/c", "a b/c"] {
            assert!(bad.parse::<SubscriptionPath>().is_err(), "{bad}");
        }
        for (text, value) in [
            ("latest", serde_json::json!("latest")),
            ("7", serde_json::json!({"offset": 7})),
            ("1970-01-01T01Z", serde_json::json!({"at": 3_600_000})),
        ] {
            assert_eq!(text.parse(), Ok(Start(value)), "{text}");
        }
        assert!("tomorrow".parse::<Start>().is_err());
    }
}
