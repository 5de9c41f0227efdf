//! `millrace send`: lines as messages over TCP.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cli;
use crate::client::Server;
use crate::send::{SendOptions, send};
use crate::settings::Settings;

/// Sends, and returns the exit code of the report.
pub(crate) async fn run(options: cli::Send, settings: &Settings) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let of_settings = || Server::of_listener(settings.command.tcp.listen, settings.tls.is_on());
    let server = options.server.unwrap_or_else(of_settings);
    let (key, tls) = options.key.for_intake(&server)?;
    let sent = SendOptions {
        server,
        key,
        tls,
        client: options.client,
        epoch: options.epoch.unwrap_or(u64::try_from(now.as_millis()).unwrap_or_default()),
        window: options.window,
        rate: options.rate,
        patience: options.patience,
    };
    send(sent, options.files, options.json, options.quiet).await.map(ExitCode::from)
}
