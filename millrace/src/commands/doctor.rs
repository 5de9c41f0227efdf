//! `millrace doctor`: prints each finding at once.

use std::process::ExitCode;

use crate::cli;
use crate::doctor::{Finding, Level, Warnings, examine};
use crate::settings::Settings;
use crate::text::print_line;

/// Checks everything; fails if something does not work.
pub(crate) async fn run(options: &cli::Doctor, settings: &Settings) -> ExitCode {
    let key = match options.key.key() {
        Ok(key) => key,
        Err(error) => {
            eprintln!("millrace: {}", crate::text::chain(&error));
            return ExitCode::FAILURE;
        }
    };
    // Warnings of a dependency's own check (Redis without persistence) are findings, too.
    let warnings = Warnings::collect();
    let mut worst = Level::Ok;
    let mut report = |finding: Finding| {
        worst = worst.max(finding.level);
        print_line(&finding.to_string());
    };
    examine(settings, key.as_ref(), &mut report).await;
    warnings.findings().into_iter().for_each(report);
    match worst {
        Level::Ok | Level::Warn => ExitCode::SUCCESS,
        Level::Fail => ExitCode::FAILURE,
    }
}
