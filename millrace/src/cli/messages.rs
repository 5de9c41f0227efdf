//! Options of `publish` and `consume`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use millrace_base::Span;
use millrace_contracts::topics::Name;

use super::topics::{EXIT_CODES, Manage, Server, SubscriptionPath};
use super::values::{duration, name, span, time};

/// Options of `publish`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = EXIT_CODES)]
pub(crate) struct Publish {
    /// The topic
    #[arg(value_parser = name)]
    pub(crate) topic: Name,
    /// The message; without it and --file: standard input
    pub(crate) body: Option<String>,
    /// The message is this file's content; - for standard input
    #[arg(long, value_name = "FILE", conflicts_with = "body")]
    pub(crate) file: Option<PathBuf>,
    /// An attribute; repeatable. Those that begin with ce- are attributes of CloudEvents
    #[arg(long = "attr", value_name = "NAME=VALUE", value_parser = attribute)]
    pub(crate) attributes: Vec<(String, String)>,
    /// Messages with one key keep their order
    #[arg(long)]
    pub(crate) key: Option<String>,
    /// Publish once: a repeat within 10 minutes has no effect
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,
    /// The media type; default: text/plain for BODY, else none
    #[arg(long, value_name = "TYPE")]
    pub(crate) content_type: Option<String>,
    /// Publish it so much later
    #[arg(long, value_name = "DURATION", value_parser = duration, conflicts_with = "at")]
    pub(crate) after: Option<Span>,
    /// Publish it at this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) at: Option<i64>,
    #[command(flatten)]
    pub(crate) manage: Manage,
}

/// Options of `consume`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Prints each message and a line feed, waits for more, and acknowledges what it has printed. What was printed and not yet
acknowledged when the process ends comes again: at least once. It goes on through restarts of the service.

Exits with 0 after --max messages, with --drain after the last one, and when the reader of its output ends; 1 if the service
refuses a request; 75 if the service was unavailable for as long as --patience.")]
pub(crate) struct Consume {
    /// Topic and name
    #[arg(value_name = "TOPIC/SUBSCRIPTION")]
    pub(crate) path: SubscriptionPath,
    /// Hide the messages from other readers for so long; default: the subscription's deadline, if it has one
    #[arg(long, value_name = "DURATION", value_parser = span)]
    pub(crate) lease: Option<Duration>,
    /// Most messages to print
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) max: Option<u64>,
    /// Most messages of one request; they are acknowledged together
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub(crate) batch: u64,
    /// End when there are no more
    #[arg(long)]
    pub(crate) drain: bool,
    /// One JSON object a line, with id, offset, attributes and the rest, instead of the messages alone
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: Server,
    /// How long to retry while the service is unavailable or the subscription suspended
    #[arg(long, default_value = "1h", value_parser = span)]
    pub(crate) patience: Duration,
}

fn attribute(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.is_empty() || !name.bytes().all(legal) {
        return Err("a name has the characters a-z 0-9 -".into());
    }
    Ok((name.to_owned(), value.to_owned()))
}
