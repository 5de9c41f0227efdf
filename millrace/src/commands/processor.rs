//! `millrace processor`: counting alone.

use millrace_service::net::reserve;

use crate::start::Start;

/// Counts until a stop signal.
pub(crate) async fn run(mut start: Start) -> anyhow::Result<()> {
    let config = start.settings.processor.clone();
    let admin = reserve("processor.admin", config.admin)?;
    start.serve_admin(admin, axum::Router::new())?;
    let Some(log) = start.log(config.admin).await? else { return Ok(()) };
    let instance = start.settings.instance(config.admin);
    let (health, stop) = (start.health.clone(), start.stop.clone());
    let dedup =
        millrace_processor::intake::run(config.clone(), log.clone(), instance.clone(), health.clone(), stop.clone());
    start.supervisor.spawn("intake", dedup);
    start.supervisor.spawn("processor", millrace_processor::run(config, log.clone(), instance, health, stop));
    start.run(Some(log)).await
}
