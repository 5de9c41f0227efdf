//! Helper of `bench/run`: the bare server that Millrace is compared with, events that lie ready, load that bash cannot make,
//! and the checks of what came of it. What is measured is in `bench/parts`; how to read it in `bench/README.md`.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod bare;
mod clock;
mod closed_loop;
mod http;
mod live;
mod numbers;
mod offer;
mod open_loop;
mod pauses;
mod place;
mod plot;
mod preload;
mod requests;
mod totals;
mod visible;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use closed_loop::Trips;
use offer::Pace;
use place::Place;

// The same as in the `millrace` binary, so that the allocator is no difference between the two.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Helper of bench/run.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve POST /analytics with a bare 204 and GET /analytics with a bare 200
    Bare {
        /// Where to listen
        listen: SocketAddr,
        /// The body of the 200
        #[arg(long, default_value = "")]
        body: String,
    },
    /// Create the topics and write events, as the command service would, straight to the log
    Preload {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        shape: preload::Shape,
    },
    /// Fail unless the hourly counts add up to this many events
    Totals {
        #[command(flatten)]
        place: Place,
        /// How many were written
        #[arg(long)]
        events: u64,
        /// Of how many users, where each came in one hour only
        #[arg(long)]
        users: Option<u64>,
    },
    /// Look how long the counts of a partition stand still
    Pauses {
        #[command(flatten)]
        place: Place,
        /// For how many seconds, once every partition has shown something
        #[arg(long)]
        seconds: f64,
    },
    /// Post events of the current hour at a rate, whatever the answers
    Offer {
        /// Address of the command service
        command: SocketAddr,
        #[command(flatten)]
        pace: Pace,
    },
    /// Read the current hour and past ones at a rate, whatever the answers
    Reads {
        /// Address of the query service
        query: SocketAddr,
        #[command(flatten)]
        pace: Pace,
        /// Hours in Redis before the current one; 0 where there is no Redis
        #[arg(long, default_value_t = 0)]
        live_hours: u64,
        /// Hours that were written
        #[arg(long)]
        hours: u64,
    },
    /// Post at a rate, and look how long events take to show
    Visible {
        /// Address of the command service
        command: SocketAddr,
        /// Address of the query service
        query: SocketAddr,
        #[command(flatten)]
        pace: Pace,
    },
    /// Read past hours, one after the other
    Get {
        /// Address of the query service
        query: SocketAddr,
        #[command(flatten)]
        trips: Trips,
        /// Where the answers should come from
        #[arg(long)]
        tier: Stored,
    },
    /// Ask Redis for past hours as the query service does, one after the other
    RedisGet {
        /// Where it is
        url: String,
        /// The prefix of Millrace's names
        #[arg(long)]
        prefix: String,
        /// Number of partitions
        #[arg(long, default_value_t = 12)]
        partitions: u32,
        #[command(flatten)]
        trips: Trips,
    },
    /// Ask PostgreSQL for past hours as the query service does, one after the other
    SqlGet {
        /// Where it is
        url: String,
        /// The schema of Millrace's tables
        #[arg(long)]
        schema: String,
        /// Number of partitions
        #[arg(long, default_value_t = 12)]
        partitions: u32,
        #[command(flatten)]
        trips: Trips,
    },
    /// Read the live stream many times over
    Live {
        /// Address of the query service
        query: SocketAddr,
        /// How many readers
        #[arg(long)]
        readers: usize,
        /// For how many seconds, once all are connected
        #[arg(long)]
        seconds: f64,
    },
    /// Draw goodput against offered load: engine, offered, goodput, peak on each line of the table
    Plot {
        /// The table
        table: PathBuf,
        /// The picture
        svg: PathBuf,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Stored {
    Redis,
    Archive,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Bare { listen, body } => bare::serve(listen, body).await,
        Command::Preload { place, shape } => preload::run(place.open()?, &shape).await,
        Command::Totals { place, events, users } => totals::run(&place.open()?, events, users),
        Command::Pauses { place, seconds } => pauses::run(place.open()?, Duration::from_secs_f64(seconds)).await,
        Command::Offer { command, pace } => offer::posts(command, pace).await,
        Command::Reads { query, pace, live_hours, hours } => offer::reads(query, pace, live_hours, hours).await,
        Command::Visible { command, query, pace } => visible::run(command, query, pace).await,
        Command::Get { query, trips, tier } => {
            let tier = match tier {
                Stored::Redis => http::Tier::Redis,
                Stored::Archive => http::Tier::Archive,
            };
            closed_loop::get(query, trips, tier).await
        }
        Command::RedisGet { url, prefix, partitions, trips } => {
            closed_loop::redis(&url, &prefix, partitions, trips).await
        }
        Command::SqlGet { url, schema, partitions, trips } => closed_loop::sql(&url, &schema, partitions, trips).await,
        Command::Live { query, readers, seconds } => live::run(query, readers, Duration::from_secs_f64(seconds)).await,
        Command::Plot { table, svg } => Ok(std::fs::write(svg, plot::draw(&std::fs::read_to_string(table)?)?)?),
    }
}

/// Prints a line for the script, at once.
fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
