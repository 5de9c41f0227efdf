//! `millrace consume`: prints and acknowledges the messages of a subscription.

use super::subscription::of;
use crate::cli;
use crate::messaging::{Consumer, Service};
use crate::settings::Settings;

/// Consumes until the end, if there is one.
pub(crate) async fn run(options: cli::Consume, settings: &Settings) -> anyhow::Result<()> {
    let target = options.server.target(settings.command.listen, settings.tls.is_on())?;
    let service = Service::new(target, options.server.timeout, options.patience).verbose();
    let cli::Consume { path, lease, max, batch, drain, json, .. } = options;
    Consumer { service, path: of(&path), lease, max, batch, drain, json }.run().await
}
