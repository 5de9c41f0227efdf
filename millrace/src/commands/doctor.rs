//! `millrace doctor`: prints the findings, a line each, as they are made.

use std::process::ExitCode;

use millrace_service::telemetry::{self, TelemetryConfig};

use super::say;
use crate::doctor::{Level, examine};
use crate::settings::Settings;

/// Examines everything; fails when something does not work.
pub(crate) async fn run(settings: &Settings) -> ExitCode {
    // What a dependency's own check warns about (Redis without persistence) belongs to the findings.
    let logs = TelemetryConfig { level: "off,millrace_store=warn".into(), ..settings.telemetry.clone() };
    if let Err(e) = telemetry::init(&logs) {
        eprintln!("millrace: {e}");
    }
    let mut worst = Level::Ok;
    examine(settings, &mut |finding| {
        worst = worst.max(finding.level);
        say(&finding.to_string());
    })
    .await;
    match worst {
        Level::Ok | Level::Warn => ExitCode::SUCCESS,
        Level::Fail => ExitCode::FAILURE,
    }
}
