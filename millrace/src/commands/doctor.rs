//! `millrace doctor`: prints each finding at once.

use std::process::ExitCode;

use millrace_service::telemetry::{self, TelemetryConfig};

use crate::cli;
use crate::doctor::{Level, examine};
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
    let logs = TelemetryConfig { level: "off,millrace_store=warn".into(), ..settings.telemetry.clone() };
    if let Err(e) = telemetry::init(&logs) {
        eprintln!("millrace: {e}");
    }
    let mut worst = Level::Ok;
    examine(settings, key.as_ref(), &mut |finding| {
        worst = worst.max(finding.level);
        print_line(&finding.to_string());
    })
    .await;
    match worst {
        Level::Ok | Level::Warn => ExitCode::SUCCESS,
        Level::Fail => ExitCode::FAILURE,
    }
}
