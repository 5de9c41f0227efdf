//! Options of `import` and `export`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::{span, time};
use crate::bulk::export;
use crate::bulk::import::Format;
use crate::client::{KeySource, Target};

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
    #[command(flatten)]
    pub(crate) key: KeySource,
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
    #[command(flatten)]
    pub(crate) key: KeySource,
    /// Start of the range
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) from: i64,
    /// End of the range, exclusive
    #[arg(long, value_name = "TIME", value_parser = time)]
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
