//! `millrace materializer`: the writer of the read models alone.

use millrace_materializer::Views;
use millrace_service::net::reserve;

use crate::start::Start;

/// Projects counts until a stop signal.
pub(crate) async fn run(mut start: Start) -> anyhow::Result<()> {
    let config = start.settings.materializer.clone();
    let admin = reserve("materializer.admin", config.admin)?;
    start.serve_admin(admin, axum::Router::new())?;
    let Some(log) = start.log(config.admin).await? else { return Ok(()) };
    let live = start.live_hours().await?;
    let Some(archive) = start.archive(Some(&log)).await? else { return Ok(()) };
    let Some(index) = start.message_index(&log).await? else { return Ok(()) };
    let views = Views { live, archive, index: Some(index) };
    let instance = start.settings.instance(config.admin);
    start.spawn_journal(&log, &instance);
    let (health, stop) = (start.health.clone(), start.stop.clone());
    let running = millrace_materializer::run(config, log.clone(), instance, views, health, stop);
    start.supervisor.spawn("materializer", running);
    start.run(Some(log)).await
}
