//! `millrace load`: load with an oracle.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use super::say;
use crate::cli;
use crate::load::{Plan, Shape, Target, run as run_load};
use crate::settings::Settings;

/// Runs a load; the process fails unless every number is right.
pub(crate) async fn run(options: cli::Load, settings: &Settings) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    let connections = options.connections as usize;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let plan = Plan {
        shape: Shape {
            seed: options.seed.unwrap_or_else(random),
            events: options.events,
            users: options.users,
            hours: options.hours,
            late: options.late,
            now_ms: u64::try_from(now.as_millis())?,
        },
        run: options.run.unwrap_or_else(|| format!("{:08x}", random() >> 32)),
        commands: if options.command.is_empty() {
            vec![listening("command.listen", settings.command.listen)?]
        } else {
            options.command
        },
        query: options.query.map_or_else(|| listening("query.listen", settings.query.listen), Ok)?,
        connections,
        threads: options.threads.map_or((cores / 2).max(1), |threads| threads as usize).min(connections),
        batch: options.batch,
        ids: options.ids || options.resend_unknown || options.duplicates > 0,
        resend_unknown: options.resend_unknown,
        duplicates: options.duplicates,
        rate: (options.rate > 0.0).then_some(options.rate),
        timeout: options.timeout,
        patience: options.patience,
        settle: options.settle,
    };
    let report = run_load(plan).await?;
    say(&if options.json { report.json().to_string() } else { report.to_string() });
    Ok(if report.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A listener's own address as a target; one that listens everywhere is reached on loopback.
pub(super) fn listening(key: &str, mut address: SocketAddr) -> anyhow::Result<Target> {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("http://{address}").parse().map_err(|e: String| anyhow::anyhow!("{key}: {e}"))
}

/// A random number: the standard library seeds its hashers from the system.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(0)
}
