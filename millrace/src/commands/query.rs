//! `millrace query`: the read side alone.

use millrace_query::{ReadModels, refill_sender};
use millrace_service::net::reserve;

use crate::start::Start;

/// Serves reads until a stop signal.
pub(crate) async fn run(mut start: Start) -> anyhow::Result<()> {
    let config = start.settings.query.clone();
    let public = reserve("query.listen", config.listen)?;
    let admin = reserve("query.admin", config.admin)?;
    start.serve_admin(admin, axum::Router::new())?;
    let live = start.live_hours().await?;
    let Some(archive) = start.archive(None).await? else { return Ok(()) };
    let log = start.optional_log(config.admin);
    let refill = Some(refill_sender(log.clone()));
    let models = ReadModels { live, archive, live_hours: start.settings.redis.live_hours, refill, log };
    let run = millrace_query::run(config, public.listen()?, models, start.names.clone(), start.context());
    start.supervisor.spawn("query", run);
    start.run(None).await
}
