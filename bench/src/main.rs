//! Helper of `bench/run`: the bare server that Millrace is compared with, events for the processor to count, and the
//! check that it counted them. What is measured, and how, is in `bench/run`; how to read it in `bench/README.md`.

mod bare;
mod kafka;
mod preload;
mod totals;

use std::net::SocketAddr;

use clap::{Parser, Subcommand};

use kafka::Kafka;

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
        kafka: Kafka,
        /// How many
        #[arg(long)]
        events: u64,
        /// Of how many users
        #[arg(long, default_value_t = 100_000)]
        users: u64,
    },
    /// Fail unless the hourly counts add up to this many events
    Totals {
        #[command(flatten)]
        kafka: Kafka,
        /// How many were written
        #[arg(long)]
        events: u64,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Bare { listen, body } => bare::serve(listen, body).await,
        Command::Preload { kafka, events, users } => preload::run(&kafka, events, users).await,
        Command::Totals { kafka, events } => totals::run(&kafka, events),
    }
}
