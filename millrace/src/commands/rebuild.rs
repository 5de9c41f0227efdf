//! `millrace rebuild`: empties a read model and follows its rebuild from the log.

use std::time::Instant;

use anyhow::Context as _;
use millrace_contracts::AuditOutcome;
use millrace_log::Log;
use millrace_materializer::Views;
use millrace_service::audit::Act;
use millrace_service::health::Health;
use tokio_util::sync::CancellationToken;

use super::confirmed;
use super::verify::embedded;
use crate::audit;
use crate::cli::{self, Store};
use crate::inspect::{Remote, Source};
use crate::settings::{Engine, Settings};
use crate::text::print_line;
use crate::views::{View, follow, progress};

/// Empties the store and waits for the complete rebuild.
pub(crate) async fn run(options: cli::Rebuild, settings: &Settings) -> anyhow::Result<()> {
    let key = options.key.key()?;
    let store = options.store;
    anyhow::ensure!(
        store == Store::Archive || settings.engine == Engine::Kafka,
        "the embedded engine has no Redis: its archive serves every hour"
    );
    // Reports an unreachable dependency before it empties anything.
    let source = Source::find(settings, &settings.names(), key.as_ref()).await?;
    anyhow::ensure!(options.yes || confirmed(&question(store))?, "canceled; nothing changed");
    let began = Instant::now();
    let offsets = match source {
        Source::Running(remote) => in_running_process(&remote, store).await?,
        Source::Log(log) => audited(log, store, settings).await?,
    };
    print_line(&format!(
        "{store}: rebuilt from {offsets} offsets of the log in {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn question(store: Store) -> String {
    let meanwhile = match store {
        Store::Redis => "the archive serves the live hours, or responses are 503 `rebuilding`",
        Store::Archive => "responses for older hours are 503 `rebuilding`",
    };
    format!("This empties {store} and rebuilds it from the log; until then {meanwhile}.")
}

/// Without a process that records it: here.
async fn audited(log: Log, store: Store, settings: &Settings) -> anyhow::Result<u64> {
    let (audit, principal, object) = (audit::of_tool(&log), audit::operator(), store.to_string());
    let act = Act { principal: &principal, ..Act::of_process("store.rebuild", &object) };
    audit.begin(act).await.map_err(|refusal| anyhow::Error::msg(refusal.detail))?;
    let rebuilt = match settings.engine {
        Engine::Kafka => by_materializers(&log, store, settings).await,
        Engine::Embedded => in_this_process(&log, settings).await,
    };
    let outcome = if rebuilt.is_ok() { AuditOutcome::Done } else { AuditOutcome::Unknown };
    audit.record(act, outcome, "").await;
    log.close(settings.shutdown_grace.0).await;
    rebuilt
}

/// In the process that has the directory open.
async fn in_running_process(remote: &Remote, store: Store) -> anyhow::Result<u64> {
    let store = store.to_string();
    remote.rebuild(&store).await?;
    follow(async || remote.progress(&store).await).await
}

/// By the materializers, wherever they run.
async fn by_materializers(log: &Log, store: Store, settings: &Settings) -> anyhow::Result<u64> {
    let name = store.to_string();
    let view = View::of_kafka(settings).await?.into_iter().find(|view| view.name() == name).context(name)?;
    view.reset().await?;
    follow(async || progress(log, &view).await).await
}

/// In this process, which runs the projection until it is complete: no other has the directory open.
async fn in_this_process(log: &Log, settings: &Settings) -> anyhow::Result<u64> {
    let view = embedded(log)?;
    let View::Archive(archive) = view.clone() else { anyhow::bail!("the embedded engine has an archive only") };
    view.reset().await?;
    let stop = CancellationToken::new();
    let views = Views { live: None, archive, index: None };
    let (config, instance) = (settings.materializer.clone(), "rebuild".to_owned());
    let running = millrace_materializer::run(config, log.clone(), instance, views, Health::new(), stop.clone());
    let running = tokio::spawn(running);
    let followed = follow(async || progress(log, &view).await).await;
    stop.cancel();
    running.await.context("the materializer failed")??;
    followed
}
