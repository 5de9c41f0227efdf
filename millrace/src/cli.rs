//! The command line: subcommands and their options.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use millrace_base::Span;
use millrace_contracts::Hour;

use crate::bulk::export;
use crate::bulk::import::Format;
use crate::client::Target;
use crate::inspect::From;

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
    /// Run all four services in this process, on either engine
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
    Doctor,
    /// List the topics of the log
    Topics(Topics),
    /// Print the records of a topic, decoded
    Tail(Tail),
    /// Generate load and compare every count with the expected one
    Load(Load),
    /// Send the events of a file, each once; resumes after a kill
    Import(Import),
    /// Write the counts of hours to a file
    Export(Export),
    /// Send the lines of files as messages over TCP, each until it is acknowledged
    Send(Send),
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

/// Options of `check-config`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CheckConfig {
    /// Print the annotated defaults, the manual of all settings
    #[arg(long)]
    pub(crate) print_default: bool,
}

/// Options of `topics`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Topics {
    /// JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `tail`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Tail {
    /// The topic, with or without the prefix
    pub(crate) topic: String,
    /// Start: beginning, end or an offset
    #[arg(long, default_value = "beginning", value_name = "WHERE")]
    pub(crate) from: From,
    /// Most records to print
    #[arg(long, value_name = "N")]
    pub(crate) max: Option<u64>,
    /// Continue at the end
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only this partition
    #[arg(long, value_name = "P")]
    pub(crate) partition: Option<u32>,
    /// One JSON object per line instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `send`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Each line is a message, without its LF. Lines are numbered from 1 over all files, so the same input with the same epoch is the
same messages: what was acknowledged before is not stored again.

Ends with 0 if all are acknowledged, 1 if some were refused, 75 if the server could not be reached or did not answer for as
long as --patience; then the same command goes on with the printed --epoch.")]
pub(crate) struct Send {
    /// Files; - for the standard input
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// The client's id: 1 to 64 of A-Z a-z 0-9 . _ : -
    #[arg(long, value_name = "ID", value_parser = client_id)]
    pub(crate) client: String,
    /// The number space; the time in ms if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=i64::MAX as u64))]
    pub(crate) epoch: Option<u64>,
    /// The server; from the settings if not given
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) server: Option<String>,
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

/// Options of `load`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Load {
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
    /// One line of JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `import`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Lines are {\"timestamp\": MS, \"user\": TEXT, \"event\": \"click\"|\"impression\"} with an optional \"event_id\", or CSV with a header
line of these columns in any order.

An event without an id gets one derived from the file's content and its line. So a resent event, after a lost response or a
kill, counts once within the window of event ids: by default one hour of log time and 500,000 records of a partition
(processor.dedup_window, processor.max_dedup_records). The last batches of a killed import, at most two per connection, count
twice if it resumes only after that.

FILE.millrace-import holds the position up to which every line has a final outcome, FILE.millrace-rejects the rejected lines.
Standard input has neither: its import cannot resume.

Exits with 0 if every line is in the log, 1 if some lines were rejected, 2 if the import stopped early.")]
pub(crate) struct Import {
    /// The file; - for standard input
    pub(crate) file: PathBuf,
    /// Format; default: by the extension (.csv, .ndjson, .jsonl), and NDJSON for standard input
    #[arg(long)]
    pub(crate) format: Option<Format>,
    /// Send nothing, report invalid lines. Does not check what depends on the service's settings, such as the accepted
    /// timestamps
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Import a completely imported file once more. Its lines get other ids, so every event counts again
    #[arg(long)]
    pub(crate) again: bool,
    /// Folder of checkpoint and rejects; default: beside the file
    #[arg(long, value_name = "FOLDER")]
    pub(crate) state: Option<PathBuf>,
    /// Command service; repeatable, to distribute the work; default: from the settings
    #[arg(long, value_name = "URL")]
    pub(crate) command: Vec<Target>,
    /// Number of connections
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) connections: u32,
    /// Most events in one request; not above the service's `command.max_batch_items`
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) batch: u32,
    /// Longest wait for a response
    #[arg(long, default_value = "15s", value_parser = span)]
    pub(crate) timeout: Duration,
    /// How long to retry a batch while the service is unavailable or refuses it
    #[arg(long, default_value = "60s", value_parser = span)]
    pub(crate) patience: Duration,
    /// One line of JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `export`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
A time is a number of ms since the epoch or ISO 8601: 2026-11-21, 2026-11-21T08Z, 2026-11-21T08:00:00+01:00; UTC by default.

The export has whole hours, from the one that contains --from to the one that contains the last ms before --to. Unique users do
not add up, so days and totals have none.

Exits with 0 if every hour was written, 1 if the service cannot serve all counts now (it rebuilds an hour, is unavailable, or
broke off its response: retry later), 2 for any other failure. After a failure, the --output file is unchanged.")]
pub(crate) struct Export {
    /// Start of the range
    #[arg(long, value_name = "TIME", value_parser = export::time)]
    pub(crate) from: i64,
    /// End of the range, exclusive
    #[arg(long, value_name = "TIME", value_parser = export::time)]
    pub(crate) to: i64,
    /// Unit of a row
    #[arg(long, default_value = "hour")]
    pub(crate) step: export::Step,
    /// Format of the output
    #[arg(long, default_value = "csv")]
    pub(crate) format: export::Format,
    /// Output file; default: standard output
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Query service; default: from the settings
    #[arg(long, value_name = "URL")]
    pub(crate) query: Option<Target>,
    /// Longest wait for a response
    #[arg(long, default_value = "30s", value_parser = span)]
    pub(crate) timeout: Duration,
}

/// Options of `verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Verify {
    /// First hour, such as 2026-11-21T08Z; default: the oldest
    #[arg(long, value_name = "HOUR")]
    pub(crate) from: Option<Hour>,
    /// Last hour; default: the newest
    #[arg(long, value_name = "HOUR")]
    pub(crate) to: Option<Hour>,
    /// JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `rebuild`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rebuild {
    /// The read model
    pub(crate) store: Store,
    /// Do not ask for confirmation
    #[arg(long)]
    pub(crate) yes: bool,
}

/// A read model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    /// The live hours in Redis
    Redis,
    /// Every hour, in PostgreSQL or in the embedded engine's directory
    Archive,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "redis",
            Self::Archive => "archive",
        })
    }
}

fn span(text: &str) -> Result<Duration, String> {
    let span = Span::parse(text).filter(|span| !span.0.is_zero());
    span.map(|span| span.0).ok_or_else(|| "must be a duration above 0 with a unit, such as \"500ms\" or \"30s\"".into())
}

/// A percentage as hundredths of one.
fn percent(text: &str) -> Result<u32, String> {
    match text.parse::<f64>() {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10,000")]
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok((percent * 100.0).round() as u32),
        _ => Err("must be 0..=100".into()),
    }
}

fn place(text: &str) -> Result<Place, String> {
    match text.parse() {
        Ok(record) => Ok(Place::Record(record)),
        Err(_) => export::time(text).map(Place::TimeMs).map_err(|_| "must be a record's number, or a time".into()),
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

fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate| (0.0..=1e9).contains(rate));
    rate.ok_or_else(|| "must be 0..=1000000000".into())
}

fn run_word(text: &str) -> Result<String, String> {
    let fits = (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if fits { Ok(text.to_owned()) } else { Err("must be 1..=32 letters and digits".into()) }
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
        ] {
            assert!(load(&[bad]).is_err(), "{bad}");
        }
    }
}
