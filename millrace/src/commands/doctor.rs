//! `millrace doctor`: prints each finding at once.

use std::process::ExitCode;

use millrace_service::telemetry::{self, TelemetryConfig};

use crate::doctor::{Level, examine};
use crate::settings::Settings;
use crate::text::print_line;

/// Checks everything; fails if something does not work.
pub(crate) async fn run(settings: &Settings) -> ExitCode {
    // Warnings of a dependency's own check (Redis without persistence) are findings, too.
    let logs = TelemetryConfig { level: "off,millrace_store=warn".into(), ..settings.telemetry.clone() };
    if let Err(e) = telemetry::init(&logs) {
        eprintln!("millrace: {e}");
    }
    let mut worst = Level::Ok;
    examine(settings, &mut |finding| {
        worst = worst.max(finding.level);
        print_line(&finding.to_string());
    })
    .await;
    match worst {
        Level::Ok | Level::Warn => ExitCode::SUCCESS,
        Level::Fail => ExitCode::FAILURE,
    }
}
