//! `millrace command`: the write side alone.

use millrace_service::net::reserve;

use crate::commands::delivery;
use crate::start::Start;

/// Accepts events until a stop signal.
pub(crate) async fn run(mut start: Start) -> anyhow::Result<()> {
    let config = start.settings.command.clone();
    let public = reserve("command.listen", config.listen)?;
    let admin = reserve("command.admin", config.admin)?;
    let tcp = start.reserve_tcp()?;
    start.serve_admin(admin, axum::Router::new())?;
    let Some(log) = start.log(config.admin).await? else { return Ok(()) };
    let coordinate = delivery::forwarder(&start, &log, None)?;
    let (names, context) = (start.names.clone(), start.context());
    if let Some(tcp) = tcp {
        let run = millrace_command::tcp::run(config.tcp.clone(), tcp.listen()?, log.clone(), context.clone());
        start.supervisor.spawn("tcp", run);
    }
    let run = millrace_command::run(config, public.listen()?, log.clone(), names, coordinate, context);
    start.supervisor.spawn("command", run);
    start.run(Some(log)).await
}
