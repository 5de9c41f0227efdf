//! Options of `send` and `journal`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::values::{rate, span, time};
use crate::client::KeySource;
use crate::client::Server;

/// Options of `send`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Each line is a message, without its LF. Lines are numbered from 1 over all files, so the same input with the same epoch is the
same messages: what was acknowledged before is not stored again.

Ends with 0 if all are acknowledged, 1 if some were refused, 75 if the server could not be reached or did not answer for as
long as --patience; then the same command goes on with the printed --epoch.")]
pub(crate) struct Send {
    #[command(flatten)]
    pub(crate) key: KeySource,
    /// Files; - for the standard input
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// The client's id: 1 to 64 of A-Z a-z 0-9 . _ : -
    #[arg(long, value_name = "ID", value_parser = client_id)]
    pub(crate) client: String,
    /// The number space; the time in ms if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub(crate) epoch: Option<u64>,
    /// The server, tls://HOST:PORT if it encrypts; from the settings if not given
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) server: Option<Server>,
    /// Messages without an answer
    #[arg(long, default_value_t = 1_024, value_parser = window)]
    pub(crate) window: usize,
    /// Messages a second; 0 for as many as possible
    #[arg(long, default_value = "0", value_parser = rate)]
    pub(crate) rate: f64,
    /// How long to try without an answer
    #[arg(long, default_value = "60s", value_parser = span)]
    pub(crate) patience: Duration,
    /// One line of JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// Print what went wrong only
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// The subcommands of `journal`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Journal {
    /// Print the records as lines of text
    Cat(JournalRange),
    /// Print the last records, and those that come
    Tail(JournalRange),
    /// Check every checksum; exit 1 if something is wrong
    Verify(JournalVerify),
    /// Begin a journal in the configured directory, which has none, from where the journal of that name has come elsewhere.
    /// Its process must not run
    Adopt {
        /// Begin with the earliest record there is instead
        #[arg(long, value_name = "WHERE", value_parser = ["earliest"])]
        from: Option<String>,
    },
}

/// Options of `journal cat` and `journal tail`.
#[derive(Debug, Clone, Args)]
pub(crate) struct JournalRange {
    /// The first record: its number, or a time
    #[arg(long, value_name = "RECORD|TIME", value_parser = place)]
    pub(crate) from: Option<Place>,
    /// The first record that is not printed: its number, or a time
    #[arg(long, value_name = "RECORD|TIME", value_parser = place)]
    pub(crate) until: Option<Place>,
    /// Directory of the journal; from the settings if not given
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) directory: Option<PathBuf>,
}

/// Options of `journal verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct JournalVerify {
    /// Directory of the journal; from the settings if not given
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) directory: Option<PathBuf>,
    /// JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// A place in a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The record of a number.
    Record(u64),
    /// The first record of a time or later, ms since the epoch.
    TimeMs(i64),
}

fn place(text: &str) -> Result<Place, String> {
    match text.parse() {
        Ok(record) => Ok(Place::Record(record)),
        Err(_) => time(text).map(Place::TimeMs).map_err(|_| "must be a record's number, or a time".into()),
    }
}

fn client_id(text: &str) -> Result<String, String> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'-');
    let fits = (1..=64).contains(&text.len()) && text.bytes().all(legal);
    let reserved = ["-", "HELLO", "PING", "BYE"].contains(&text);
    if fits && !reserved { Ok(text.to_owned()) } else { Err("must be 1..=64 characters of A-Z a-z 0-9 . _ : -".into()) }
}

fn window(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|window| (1..=1_024).contains(window)).ok_or_else(|| "must be 1..=1024".into())
}
