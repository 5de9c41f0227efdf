//! The tool of `bench/run`: the bare server that Millrace is compared with, preloaded events, load at a rate, and checks of
//! the counts. The measurements are in `bench/parts`; `bench/README.md` explains how to read them.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

mod bare;
mod clock;
mod closed_loop;
mod cpu;
mod http;
mod live;
mod log_args;
mod numbers;
mod offer;
mod open_loop;
mod pauses;
mod plot;
mod preload;
mod process;
mod push;
mod requests;
mod tcp;
mod topics;
mod totals;
mod visible;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use closed_loop::Trips;
use cpu::Process;
use log_args::LogArgs;
use offer::Pace;
use topics::Topics;

// The allocator of the `millrace` binary, so that both servers have the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The tool of bench/run
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve POST /analytics with a bare 204, GET /analytics with a bare 200, POST of a message with a bare 201
    Bare {
        /// Address to listen on
        listen: SocketAddr,
        /// The body of the 200
        #[arg(long, default_value = "")]
        body: String,
    },
    /// Create the topics and write events, as the command service would, straight to the log
    Preload {
        #[command(flatten)]
        place: LogArgs,
        #[command(flatten)]
        shape: preload::Shape,
    },
    /// Fail unless the sum of the hourly counts is this number of events
    Totals {
        #[command(flatten)]
        place: LogArgs,
        /// Number of events written
        #[arg(long)]
        events: u64,
        /// Number of their users, if each appears in one hour only
        #[arg(long)]
        users: Option<u64>,
    },
    /// Measure the longest pause in the counts of each partition
    Pauses {
        #[command(flatten)]
        place: LogArgs,
        /// Length in seconds, from the first counts of every partition
        #[arg(long)]
        seconds: f64,
    },
    /// Post events of the current hour at a rate, independent of the responses
    Offer {
        /// Address of the command service
        command: SocketAddr,
        #[command(flatten)]
        pace: Pace,
    },
    /// Read current and past hours at a rate, independent of the responses
    Reads {
        /// Address of the query service
        query: SocketAddr,
        #[command(flatten)]
        pace: Pace,
        /// Hours in Redis before the current one; 0 without Redis
        #[arg(long, default_value_t = 0)]
        live_hours: u64,
        /// Number of hours with events
        #[arg(long)]
        hours: u64,
    },
    /// Post at a rate, and measure when the events become visible
    Visible {
        /// Address of the command service
        command: SocketAddr,
        /// Address of the query service
        query: SocketAddr,
        #[command(flatten)]
        pace: Pace,
        /// A process of the pipeline, whose CPU time is reported: NAME=PID
        #[arg(long = "process")]
        processes: Vec<Process>,
    },
    /// Read past hours in a closed loop
    Get {
        /// Address of the query service
        query: SocketAddr,
        #[command(flatten)]
        trips: Trips,
        /// The read model that should serve the responses
        #[arg(long)]
        tier: Stored,
    },
    /// Read past hours from Redis as the query service does, in a closed loop
    RedisGet {
        /// URL
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
    /// Read past hours from PostgreSQL as the query service does, in a closed loop
    SqlGet {
        /// URL
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
    /// Send messages over TCP, as many as are acknowledged
    Tcp {
        /// Address of the listener
        server: SocketAddr,
        #[command(flatten)]
        shape: tcp::Shape,
    },
    /// Create topics, and publish messages to each
    Backlog {
        /// Address of the command service
        command: SocketAddr,
        #[command(flatten)]
        topics: Topics,
        /// Number of messages of each
        #[arg(long, default_value_t = 0)]
        messages: u64,
    },
    /// Get and acknowledge messages of a backlog in closed loops
    Trips {
        /// Address of the command service
        command: SocketAddr,
        #[command(flatten)]
        shape: topics::trips::Shape,
    },
    /// Acknowledge messages of a backlog at a rate
    Acks {
        /// Address of the command service
        command: SocketAddr,
        #[command(flatten)]
        topics: Topics,
        #[command(flatten)]
        pace: Pace,
    },
    /// Publish at a rate beside readers of every topic, and compare what was published with what was read
    Follow {
        /// Address of the command service
        command: SocketAddr,
        #[command(flatten)]
        topics: Topics,
        #[command(flatten)]
        pace: Pace,
    },
    /// Create very many topics with a subscription each
    Many {
        /// Address of the command service
        command: SocketAddr,
        #[command(flatten)]
        shape: topics::many::Shape,
    },
    /// Publish to topics drawn at random, and get the messages, in closed loops
    ManyTrips {
        /// Address of the command service
        command: SocketAddr,
        #[command(flatten)]
        shape: topics::many::Shape,
        /// Length in seconds
        #[arg(long)]
        seconds: f64,
    },
    /// Wait until a get of a topic drawn at random is answered
    ManyFirst {
        /// Address of the command service
        command: SocketAddr,
        #[command(flatten)]
        topics: Topics,
    },
    /// Create a hundred push subscriptions of each topic to endpoints of which a tenth are dead, and measure what they cost
    Hooks {
        /// Address of the command service
        command: SocketAddr,
        #[command(flatten)]
        shape: push::many::Shape,
    },
    /// Have a backlog delivered to an endpoint
    Deliver {
        /// Address of the command service
        command: SocketAddr,
        #[command(flatten)]
        shape: push::deliver::Shape,
    },
    /// Publish at a rate, and measure when the messages arrive at an endpoint
    Arrive {
        /// Address of the command service
        command: SocketAddr,
        #[command(flatten)]
        topics: Topics,
        /// Address of the endpoint, the same in each run
        #[arg(long)]
        endpoint: SocketAddr,
        #[command(flatten)]
        pace: Pace,
    },
    /// Post signed messages to an endpoint, without Millrace
    Post {
        #[command(flatten)]
        shape: push::bare::Shape,
    },
    /// Read the live stream with many readers
    Live {
        /// Address of the query service
        query: SocketAddr,
        /// Number of readers
        #[arg(long)]
        readers: usize,
        /// Length in seconds, once all are connected
        #[arg(long)]
        seconds: f64,
    },
    /// Draw goodput against offered load from a table of engine, offered, goodput and peak
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
        Command::Visible { command, query, pace, processes } => visible::run(command, query, pace, processes).await,
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
        Command::Tcp { server, shape } => tcp::run(server, shape).await,
        Command::Backlog { command, topics, messages } => topics::backlog::run(command, &topics, messages).await,
        Command::Trips { command, shape } => topics::trips::run(command, shape).await,
        Command::Acks { command, topics, pace } => topics::acks::run(command, &topics, pace).await,
        Command::Follow { command, topics, pace } => topics::follow::run(command, &topics, pace).await,
        Command::Many { command, shape } => topics::many::create(command, shape).await,
        Command::ManyTrips { command, shape, seconds } => topics::many::trips(command, shape, seconds).await,
        Command::ManyFirst { command, topics } => topics::many::first(command, &topics).await,
        Command::Hooks { command, shape } => push::many::run(command, shape).await,
        Command::Deliver { command, shape } => push::deliver::run(command, shape).await,
        Command::Arrive { command, topics, endpoint, pace } => {
            push::latency::run(command, &topics, endpoint, pace).await
        }
        Command::Post { shape } => push::bare::run(shape).await,
        Command::Plot { table, svg } => Ok(std::fs::write(svg, plot::draw(&std::fs::read_to_string(table)?)?)?),
    }
}

/// Prints a line for the script and flushes it.
fn print(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
