//! `millrace verify`: compares the log with the read models, on either engine.

use std::ops::Range;
use std::process::ExitCode;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressDrawTarget};
use millrace_contracts::{Hour, Topic};
use millrace_log::Log;
use millrace_store::Archive;

use crate::cli;
use crate::inspect::Source;
use crate::settings::{Engine, Settings};
use crate::text::print_line;
use crate::views::{Report, View, verify};

/// Compares; fails if a count differs or could not be compared.
pub(crate) async fn run(options: cli::Verify, settings: &Settings) -> anyhow::Result<ExitCode> {
    let key = options.key.key()?;
    // As in an export, the last hour is that of the last ms before the end.
    let end = options.to.map_or(Hour::MAX, |to| Hour::of_ms(to - 1)).plus(1);
    let hours = Hour::of_ms(options.from.unwrap_or(0))..end;
    let report = match (Source::find(settings, &settings.names(), key.as_ref()).await?, settings.engine) {
        (Source::Running(remote), _) => remote.verify(&hours).await?,
        (Source::Log(log), Engine::Kafka) => here(&log, &View::of_kafka(settings).await?, hours).await?,
        (Source::Log(log), Engine::Embedded) => here(&log, &[embedded(&log)?], hours).await?,
    };
    print_line(&if options.json { serde_json::to_string(&report)? } else { report.to_string() });
    Ok(if report.is_right() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn here(log: &Log, views: &[View], hours: Range<Hour>) -> anyhow::Result<Report> {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    let report = verify(log, views, hours, |done, all| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    });
    let report = report.await;
    bar.finish_and_clear();
    report
}

/// The archive in the directory that this process has open.
pub(super) fn embedded(log: &Log) -> anyhow::Result<View> {
    let Log::Embedded(embedded) = log else { anyhow::bail!("the log is not the embedded engine's") };
    let archive = Archive::embedded(embedded.database(), log.partitions(Topic::HOURLY)).context("the archive")?;
    Ok(View::Archive(archive))
}
