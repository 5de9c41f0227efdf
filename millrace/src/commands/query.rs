//! `millrace query`: the read side alone.

use millrace_query::Reads;

use crate::start::Start;

/// Answers until a signal comes.
pub(crate) async fn run(mut start: Start) -> anyhow::Result<()> {
    let config = start.settings.query.clone();
    let public = start.bind("query.listen", config.listen).await?;
    let admin = start.bind("query.admin", config.admin).await?;
    start.serve_admin(admin, axum::Router::new());
    let Some(log) = start.log().await? else { return Ok(()) };
    let live = start.live_hours(&log).await?;
    let Some(archive) = start.archive(&log).await? else { return Ok(()) };
    let reads = Reads { live, archive, live_hours: start.settings.redis.live_hours };
    let (names, health, stop) = (start.names.clone(), start.health.clone(), start.stop.clone());
    start.supervisor.spawn("query", millrace_query::run(config, public, reads, names, health, stop));
    start.run(Some(log)).await
}
