//! `millrace up`: all services in one process. The only way to run the embedded engine, whose directory belongs to one
//! process; its admin listener (`command.admin`) serves the directory to the tools.

use std::sync::{Arc, OnceLock};

use millrace_base::Clock;
use millrace_contracts::topics::Coordinate;
use millrace_delivery::Coordinators;
use millrace_log::Log;
use millrace_materializer::Views;
use millrace_query::{ReadModels, refill_sender};
use millrace_service::net::{Reserved, reserve};
use millrace_store::MessageIndex;

use crate::commands::delivery;
use crate::inspect;
use crate::settings::Engine;
use crate::start::Start;
use crate::threads::Threads;
use crate::views::{self, View};

/// Runs everything until a stop signal.
pub(crate) async fn run(mut start: Start) -> anyhow::Result<()> {
    let mut settings = start.settings.clone();
    // One process has one admin listener.
    settings.query.admin = settings.command.admin;
    let command_listener = reserve("command.listen", settings.command.listen)?;
    let query_listener = reserve("query.listen", settings.query.listen)?;
    let admin = reserve("command.admin", settings.command.admin)?;
    let internal = match settings.engine {
        Engine::Embedded => None,
        Engine::Kafka => Some(reserve("delivery.listen", settings.delivery.listen)?),
    };
    let tcp = start.reserve_tcp()?;

    // Opens the directory before the admin listener, so that a tool that reaches the listener finds the log behind it.
    let Some(log) = start.log(settings.command.admin).await? else { return Ok(()) };
    let mut tools = inspect::router(log.clone(), start.names.clone(), start.stop.clone());
    let opened = match &log {
        Log::Embedded(_) => start.archive(Some(&log)).await?,
        Log::Kafka(_) => None,
    };
    if let Some(archive) = &opened {
        tools = tools.merge(views::router(log.clone(), vec![View::Archive(archive.clone())]));
    }
    start.serve_admin(admin, tools)?;
    let live = start.live_hours().await?;
    let Some(archive) = (match opened {
        None => start.archive(Some(&log)).await?,
        opened => opened,
    }) else {
        return Ok(());
    };

    let Some(index) = start.message_index(&log).await? else { return Ok(()) };
    let context = start.context();
    let (health, stop) = (start.health.clone(), start.stop.clone());
    let instance = settings.instance(settings.command.admin);
    start.spawn_journal(&log, &instance);
    let names = start.names.clone();
    let (processor, dedup) = (settings.processor.clone(), settings.processor.clone());
    let intake = Threads::new("command")?;
    let listener = intake.enter(|| command_listener.listen())?;
    let coordinate = coordinate(&mut start, &log, &instance, internal, index.clone())?;
    let (log_of, names_of) = (log.clone(), names.clone());
    if let Some(tcp) = tcp {
        let listener = intake.enter(|| tcp.listen())?;
        let config = settings.command.tcp.clone();
        let run = millrace_command::tcp::run(config, listener, log.clone(), context.clone());
        start.supervisor.spawn("tcp", intake.run(run));
    }
    let run = millrace_command::run(settings.command, listener, log_of, names_of, coordinate, context.clone());
    start.supervisor.spawn("command", intake.run(run));
    let run = millrace_processor::run(processor, log.clone(), instance.clone(), health.clone(), stop.clone());
    start.supervisor.spawn("processor", run);
    let run = millrace_processor::intake::run(dedup, log.clone(), instance.clone(), health.clone(), stop.clone());
    start.supervisor.spawn("intake", run);
    let views = Views { live: live.clone(), archive: archive.clone(), index: Some(index) };
    let run = millrace_materializer::run(settings.materializer, log.clone(), instance, views, health, stop);
    start.supervisor.spawn("materializer", run);
    let opened = Arc::new(OnceLock::from(log.clone()));
    let refill = live.is_some().then(|| refill_sender(Arc::clone(&opened)));
    let models = ReadModels { live, archive, live_hours: settings.redis.live_hours, refill, log: opened };
    let run = millrace_query::run(settings.query, query_listener.listen()?, models, names, context);
    start.supervisor.spawn("query", run);
    start.run(Some(log)).await
}

/// Coordinators in this process: on the embedded engine all there are, on Kafka some among those of other processes.
fn coordinate(
    start: &mut Start,
    log: &Log,
    instance: &str,
    internal: Option<Reserved>,
    index: MessageIndex,
) -> anyhow::Result<Arc<dyn Coordinate>> {
    if let Some(internal) = internal {
        let local = delivery::serve(start, log, instance.to_owned(), internal, index)?;
        return delivery::forwarder(start, log, Some(local));
    }
    let secrets = start.settings.embedded.directory.join("push.keys");
    let config = start.settings.delivery.coordinators(None, Some(&secrets), Some(index))?;
    let coordinators = Coordinators::new(log.clone(), config, Clock::system())?;
    let run = millrace_delivery::run(coordinators.clone(), instance.to_owned(), &start.health, start.stop.clone());
    start.supervisor.spawn("delivery", run);
    Ok(Arc::new(coordinators))
}
