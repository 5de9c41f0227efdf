//! `millrace rebuild`: empties a read model and follows how it is built again from the log.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::Instant;

use anyhow::Context as _;
use millrace_log::Log;
use millrace_materializer::Views;
use millrace_service::health::Health;
use tokio_util::sync::CancellationToken;

use super::say;
use super::verify::embedded;
use crate::cli::{self, Store};
use crate::inspect::{Remote, Source};
use crate::settings::{Engine, Settings};
use crate::views::{View, follow, standing};

/// Empties the store and waits until everything is back.
pub(crate) async fn run(options: cli::Rebuild, settings: &Settings) -> anyhow::Result<()> {
    let store = options.store;
    anyhow::ensure!(
        store == Store::Archive || settings.engine == Engine::Kafka,
        "the embedded engine has no Redis: its archive answers for every hour"
    );
    // Whatever cannot be reached is said before anything is emptied.
    let source = Source::find(settings, &settings.names()).await?;
    anyhow::ensure!(options.yes || confirmed(store)?, "nothing was done");
    let began = Instant::now();
    let offsets = match (source, settings.engine) {
        (Source::Running(remote), _) => through(&remote, store).await?,
        (Source::Log(log), Engine::Kafka) => by_others(&log, store, settings).await?,
        (Source::Log(log), Engine::Embedded) => by_ourselves(log, settings).await?,
    };
    say(&format!("{store}: built again from {offsets} offsets of the log in {:.1} s", began.elapsed().as_secs_f64()));
    Ok(())
}

fn confirmed(store: Store) -> anyhow::Result<bool> {
    anyhow::ensure!(std::io::stdin().is_terminal(), "there is nobody to ask: give --yes");
    let meanwhile = match store {
        Store::Redis => "the live hours come from the archive, or are answered 503 `rebuilding`",
        Store::Archive => "older hours are answered 503 `rebuilding`",
    };
    eprint!("{store} is emptied and built again from the log; until then {meanwhile}. Go on? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The process that holds the directory does it.
async fn through(remote: &Remote, store: Store) -> anyhow::Result<u64> {
    let store = store.to_string();
    remote.rebuild(&store).await?;
    follow(async || remote.standing(&store).await).await
}

/// The materializers do it, which may be anywhere.
async fn by_others(log: &Log, store: Store, settings: &Settings) -> anyhow::Result<u64> {
    let name = store.to_string();
    let view = View::of_kafka(settings).await?.into_iter().find(|view| view.name() == name).context(name)?;
    view.reset().await?;
    follow(async || standing(log, &view).await).await
}

/// Nobody runs on this directory: the projection runs here until it is done.
async fn by_ourselves(log: Log, settings: &Settings) -> anyhow::Result<u64> {
    let view = embedded(&log)?;
    let View::Archive(archive) = view.clone() else { anyhow::bail!("the embedded engine has an archive only") };
    view.reset().await?;
    let stop = CancellationToken::new();
    let views = Views { live: None, archive };
    let (config, instance) = (settings.materializer.clone(), "rebuild".to_owned());
    let running = millrace_materializer::run(config, log.clone(), instance, views, Health::new(), stop.clone());
    let running = tokio::spawn(running);
    let followed = follow(async || standing(&log, &view).await).await;
    stop.cancel();
    running.await.context("the materializer failed")??;
    log.close(settings.shutdown_grace.0).await;
    followed
}
