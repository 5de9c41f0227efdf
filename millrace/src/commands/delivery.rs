//! `millrace delivery`: the coordinators of topics and subscriptions alone, and what the other subcommands need of them.

use std::sync::Arc;

use millrace_base::Clock;
use millrace_command::Forwarder;
use millrace_contracts::topics::Coordinate;
use millrace_delivery::{Coordinators, internal_router};
use millrace_log::Log;
use millrace_service::http;
use millrace_service::net::{MemoryBudget, Reserved, client_config, reserve};
use millrace_store::MessageIndex;

use crate::start::Start;

/// Memory that the bodies of calls in flight share, in bytes.
const BODY_MEMORY: u64 = 256 << 20;

/// Coordinates until a stop signal.
pub(crate) async fn run(mut start: Start) -> anyhow::Result<()> {
    let config = start.settings.delivery.clone();
    let internal = reserve("delivery.listen", config.listen)?;
    let admin = reserve("delivery.admin", config.admin)?;
    start.serve_admin(admin, axum::Router::new())?;
    let Some(log) = start.log(config.admin).await? else { return Ok(()) };
    let Some(index) = start.message_index(&log).await? else { return Ok(()) };
    let instance = start.settings.instance(config.admin);
    serve(&mut start, &log, instance, internal, index)?;
    start.run(Some(log)).await
}

/// Coordinators that other processes reach at `internal`.
pub(crate) fn serve(
    start: &mut Start,
    log: &Log,
    instance: String,
    internal: Reserved,
    index: MessageIndex,
) -> anyhow::Result<Coordinators> {
    let config = start.settings.delivery.clone();
    let encrypts = start.settings.encrypts_calls();
    let scheme = if encrypts { "https" } else { "http" };
    let own = config.coordinators(Some(scheme), None, Some(index))?;
    let coordinators = Coordinators::new(log.clone(), own, Clock::system())?;
    let router = internal_router(coordinators.clone(), config.limits.clone(), MemoryBudget::new(BODY_MEMORY));
    let router = start.auth.protect_internal(router);
    let listener = internal.listen()?;
    let hosts = start.auth.hosts(listener.local_addr()?.ip());
    let (tls, stop) = (start.tls.clone().filter(|_| encrypts), start.stop.clone());
    start.supervisor.spawn("internal", http::serve_encrypted(listener, router, config.limits, hosts, tls, stop));
    let run = millrace_delivery::run(coordinators.clone(), instance, &start.health, start.stop.clone());
    start.supervisor.spawn("delivery", run);
    Ok(coordinators)
}

/// Brings calls to coordinators anywhere: those of this process first.
pub(crate) fn forwarder(start: &Start, log: &Log, local: Option<Coordinators>) -> anyhow::Result<Arc<dyn Coordinate>> {
    let local = local.map(|local| Arc::new(local) as Arc<dyn Coordinate>);
    let settings = &start.settings.tls;
    let (tls, upstream) = (client_config(settings.process_authorities())?, settings.terminated_upstream);
    Ok(Arc::new(Forwarder::start(log.clone(), local, start.auth.clone(), tls, upstream, start.stop.clone())?))
}
