//! Options of `load`.

use std::time::Duration;

use clap::Args;

use super::values::{percent, rate, span};
use crate::client::{KeySource, Target};

/// Options of `load`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
An interrupt (Ctrl-C) ends the sending; the counts of what was sent are compared all the same.

Exits with 0 if every number is right, else with 1.")]
#[expect(clippy::struct_excessive_bools, reason = "flags of the command line")]
pub(crate) struct Load {
    #[command(flatten)]
    pub(crate) key: KeySource,
    /// Number of events
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) events: u64,
    /// Number of different users
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) users: u32,
    /// Number of hours with events, the current one included
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8784))]
    pub(crate) hours: u32,
    /// Share of events in past hours
    #[arg(long, default_value = "5", value_name = "PERCENT", value_parser = percent)]
    pub(crate) late: u32,
    /// Share of clicks; all others are impressions
    #[arg(long, default_value = "50", value_name = "PERCENT", value_parser = percent)]
    pub(crate) clicks: u32,
    /// Fill the last 24 hours with so many of the events first, few at night and most in the evening; all others happen as they
    /// are sent, at `--rate`
    #[arg(long, value_name = "N", conflicts_with_all = ["hours", "late"])]
    pub(crate) day: Option<u64>,
    /// Number of connections
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_000))]
    pub(crate) connections: u32,
    /// Number of sending threads; default: half the processors
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) threads: Option<u32>,
    /// Seed of all events; default: random
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Part of every user's name; default: random. Repeating an earlier word repeats its users, and the counts of unique users
    /// differ from the expected ones
    #[arg(long, value_name = "WORD", value_parser = run_word)]
    pub(crate) run: Option<String>,
    /// Events per second; 0: as fast as responses arrive
    #[arg(long, default_value_t = 0.0, value_parser = rate)]
    pub(crate) rate: f64,
    /// Events in one request; 1 posts each by itself
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) batch: u64,
    /// Send an id with every event
    #[arg(long)]
    pub(crate) ids: bool,
    /// Resend events of unknown outcome, with the same id, until acknowledged; implies `--ids`
    #[arg(long)]
    pub(crate) resend_unknown: bool,
    /// Share of events to send twice at the same time, with the same id; implies `--ids`
    #[arg(long, default_value = "0", value_name = "PERCENT", value_parser = percent)]
    pub(crate) duplicates: u32,
    /// Command service; repeatable, to distribute the load; default: from the settings
    #[arg(long, value_name = "URL")]
    pub(crate) command: Vec<Target>,
    /// Query service; default: from the settings
    #[arg(long, value_name = "URL")]
    pub(crate) query: Option<Target>,
    /// Longest wait for a response; without one, the outcome of the event is unknown
    #[arg(long, default_value = "15s", value_parser = span)]
    pub(crate) timeout: Duration,
    /// How long to retry an event while the service is unavailable or refuses it
    #[arg(long, default_value = "60s", value_parser = span)]
    pub(crate) patience: Duration,
    /// How long the counts may take to become right
    #[arg(long, default_value = "60s", value_parser = span)]
    pub(crate) settle: Duration,
    /// One line of text instead of a table
    #[arg(long, conflicts_with = "json")]
    pub(crate) summary: bool,
    /// One line of JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

fn run_word(text: &str) -> Result<String, String> {
    let fits = (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if fits { Ok(text.to_owned()) } else { Err("must be 1..=32 letters and digits".into()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn load_parses_units_and_checks_bounds() {
        let load = |arguments: &[&str]| {
            let arguments = ["millrace", "load"].iter().chain(arguments);
            Cli::try_parse_from(arguments).map(|cli| match cli.command {
                Command::Load(load) => load,
                other => panic!("{other:?}"),
            })
        };
        let given = load(&["--late", "2.5", "--settle", "2m", "--command", "http://a:1", "--run", "x1"]).unwrap();
        assert_eq!((given.late, given.settle, given.duplicates), (250, Duration::from_mins(2), 0));
        for bad in [
            "--late=101",
            "--late=x",
            "--duplicates=101",
            "--settle=3",
            "--events=0",
            "--batch=1001",
            "--rate=-1",
            "--run=a b",
            "--query=x",
            "--clicks=101",
            "--day=x",
        ] {
            assert!(load(&[bad]).is_err(), "{bad}");
        }
        let day = load(&["--day", "20000", "--clicks", "5", "--rate", "20"]).unwrap();
        assert_eq!((day.day, day.clicks), (Some(20_000), 500));
        assert!(load(&["--day", "1", "--hours", "2"]).is_err());
        assert!(load(&["--summary", "--json"]).is_err());
    }
}
