//! `millrace load`: generates load and checks the counts.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;

use crate::cli;
use crate::client::Target;
use crate::load::{Plan, Shape, Times, run as run_load};
use crate::settings::Settings;
use crate::text::print_line;

/// Runs a load; fails unless every number is right.
pub(crate) async fn run(options: cli::Load, settings: &Settings) -> anyhow::Result<ExitCode> {
    let access = options.key.access()?;
    let of_listener = |address| Target::of_listener(address, settings.tls.is_on(), &access);
    let commands = if options.command.is_empty() {
        vec![of_listener(settings.command.listen)]
    } else {
        options.command.into_iter().map(|target| target.with(&access)).collect::<Result<_, _>>()?
    };
    let query = options.query.map_or_else(|| Ok(of_listener(settings.query.listen)), |target| target.with(&access))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let connections = options.connections as usize;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let rate = (options.rate > 0.0).then_some(options.rate);
    let times = match options.day {
        None => Times::Even { hours: options.hours, late: options.late },
        Some(filled) if rate.is_none() && filled < options.events => {
            anyhow::bail!(
                "--day: {} of {} events come after the day, and need a --rate",
                options.events - filled,
                options.events
            )
        }
        Some(filled) => Times::Day { filled },
    };
    let plan = Plan {
        shape: Shape {
            seed: options.seed.unwrap_or_else(|| fastrand::u64(..)),
            events: options.events,
            users: options.users,
            clicks: options.clicks,
            times,
            rate,
            now_ms: u64::try_from(now.as_millis())?,
        },
        run: options.run.unwrap_or_else(|| format!("{:08x}", fastrand::u32(..))),
        commands,
        query,
        connections,
        threads: options.threads.map_or((cores / 2).max(1), |threads| threads as usize).min(connections),
        batch: options.batch,
        ids: options.ids || options.resend_unknown || options.duplicates > 0,
        resend_unknown: options.resend_unknown,
        duplicates: options.duplicates,
        timeout: options.timeout,
        patience: options.patience,
        settle: options.settle,
    };
    let report = run_load(plan).await?;
    print_line(&match (options.json, options.summary) {
        (true, _) => report.json().to_string(),
        (_, true) => report.summary(),
        _ => report.to_string(),
    });
    Ok(if report.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
