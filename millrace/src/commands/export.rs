//! `millrace export`: writes the counts of hours to a file.

use std::process::ExitCode;

use crate::bulk::export::{Plan, Source, Stop, run as run_export};
use crate::cli;
use crate::client::Target;
use crate::settings::Settings;

/// The service cannot serve all counts now.
const EXIT_LATER: u8 = 1;
/// A retry fails, too.
const EXIT_FAILED: u8 = 2;

/// Exports.
pub(crate) async fn run(options: cli::Export, settings: &Settings) -> ExitCode {
    let cli::Export { from, to, step, format, output, query, timeout, key } = options;
    let target = key.access().and_then(|access| match query {
        Some(target) => Ok(target.with(&access)?),
        None => Ok(Target::of_listener(settings.query.listen, settings.tls.is_on(), &access)),
    });
    let target = match target {
        Ok(target) => target,
        Err(error) => return failed(EXIT_FAILED, &crate::text::chain(&error)),
    };
    let source = Source { target, timeout };
    match run_export(&Plan { from, to, step, format, output, source, hours: settings.query.max_range_hours }).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop @ Stop::Later(..)) => failed(EXIT_LATER, &stop.to_string()),
        Err(stop @ (Stop::Empty | Stop::Refused(..) | Stop::Output { .. })) => failed(EXIT_FAILED, &stop.to_string()),
    }
}

fn failed(code: u8, why: &str) -> ExitCode {
    eprintln!("millrace: {why}");
    ExitCode::from(code)
}
