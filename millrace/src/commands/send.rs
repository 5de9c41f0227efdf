//! `millrace send`: lines as messages over TCP.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli;
use crate::send::{SendOptions, send};
use crate::settings::Settings;

/// Sends, and returns the exit code of the report.
pub(crate) async fn run(options: cli::Send, settings: &Settings) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let key = options.key.key()?;
    let sent = SendOptions {
        key,
        address: options.server.unwrap_or_else(|| settings.command.tcp.listen.to_string()),
        client: options.client,
        epoch: options.epoch.unwrap_or(u64::try_from(now.as_millis()).unwrap_or_default()),
        window: options.window,
        rate: options.rate,
        patience: options.patience,
    };
    send(sent, options.files, options.json, options.quiet).await.map(ExitCode::from)
}
