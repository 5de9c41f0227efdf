//! The startup of every service: listeners first, then the log, the stores, and the supervisor around them.

use std::fmt::Display;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context as _;
use millrace_base::{Backoff, Clock};
use millrace_contracts::{Names, Next, StoreError, Topic};
use millrace_log::{EmbeddedLog, KafkaLog, Log, LogError};
use millrace_materializer::journal;
use millrace_service::auth::Authenticator;
use millrace_service::cors::Cors;
use millrace_service::health::{Component, Health};
use millrace_service::net::{BindError, Proxies, Reserved, Tls, reserve};
use millrace_service::supervisor::Supervisor;
use millrace_service::{ServiceContext, admin, http, shutdown, telemetry};
use millrace_store::{Archive, LiveHours, LiveWindow, MessageIndex};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::audit;
use crate::settings::{Engine, Settings};

/// Pauses between attempts to reach a dependency that is unavailable.
const MIN_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// Longest pause where nothing waits for the dependency.
const MAX_IDLE_PAUSE: Duration = Duration::from_secs(10);

/// A process during startup.
pub(crate) struct Start {
    pub(crate) settings: Settings,
    pub(crate) names: Names,
    pub(crate) health: Health,
    pub(crate) stop: CancellationToken,
    pub(crate) supervisor: Supervisor,
    pub(crate) auth: Authenticator,
    pub(crate) tls: Option<Tls>,
    // Keeps the process unready until its services have registered their components.
    starting: Component,
}

impl Start {
    /// Sets up logs, metrics, signals and authentication.
    pub(crate) fn new(settings: Settings) -> anyhow::Result<Self> {
        telemetry::init(&settings.telemetry).context("logs cannot be set up")?;
        telemetry::metrics();
        let stop = shutdown::on_signals();
        let supervisor = Supervisor::new(stop.clone(), settings.shutdown_grace.0);
        let (names, health) = (settings.names(), Health::new());
        let starting = health.component("start");
        let auth = Authenticator::start(&settings.auth, &health, stop.clone())?;
        let tls = Tls::start(&settings.tls, &health, stop.clone())?;
        Ok(Self { settings, names, health, stop, supervisor, auth, tls, starting })
    }

    /// What a service shares with this process.
    pub(crate) fn context(&self) -> ServiceContext {
        ServiceContext {
            health: self.health.clone(),
            stop: self.stop.clone(),
            auth: self.auth.clone(),
            tls: self.tls.clone(),
            proxies: Proxies::new(&self.settings.proxies),
            cors: Cors::new(&self.settings.cors),
        }
    }

    /// Serves health and metrics, and `more`, from now on, also while the process still waits for its log.
    pub(crate) fn serve_admin(&mut self, reserved: Reserved, more: axum::Router) -> anyhow::Result<()> {
        let listener = reserved.listen()?;
        let router = admin::router(&self.health).merge(more);
        let address = listener.local_addr()?.ip();
        let (router, hosts) = (self.auth.protect_admin(router, address), self.auth.admin_hosts(address));
        let limits = self.settings.admin_limits();
        let stop = self.stop.clone();
        self.supervisor.spawn("admin", http::serve_hosts(listener, router, limits, hosts, stop));
        Ok(())
    }

    /// Binds the address of TCP intake, if it is enabled.
    pub(crate) fn reserve_tcp(&self) -> Result<Option<Reserved>, BindError> {
        let tcp = &self.settings.command.tcp;
        tcp.enabled.then(|| reserve("command.tcp.listen", tcp.listen)).transpose()
    }

    /// Writes the journal, if this process has a directory for it.
    pub(crate) fn spawn_journal(&mut self, log: &Log, instance: &str) {
        let config = self.settings.journal.clone();
        if !config.directory.as_os_str().is_empty() {
            let run = journal::run(config, log.clone(), instance.to_owned(), &self.health, self.stop.clone());
            self.supervisor.spawn("journal", run);
        }
    }

    /// Opens the log and creates its topics; waits for unavailable brokers. `None` if the stop signal comes first. From then on
    /// the process with this admin listener records what is done.
    pub(crate) async fn log(&self, admin: SocketAddr) -> anyhow::Result<Option<Log>> {
        let component = self.health.component("log");
        let next = LogError::next;
        let open = || open_log(&self.settings, &self.names);
        let Some(log) = self.retry_until_ready("log", &component, next, open).await? else { return Ok(None) };
        if self.retry_until_ready("topics", &component, next, || log.create_topics()).await?.is_none() {
            return Ok(None);
        }
        audit::attach(self.auth.audit(), &log, &self.settings, admin);
        component.ready();
        info!(engine = %self.settings.engine, partitions = log.partitions(Topic::EVENTS), "opened the log");
        Ok(Some(log))
    }

    /// The log as soon as it opens, for a service that can work without it: nothing waits for it, and readiness ignores it.
    pub(crate) fn optional_log(&self, admin: SocketAddr) -> Arc<OnceLock<Log>> {
        let log = Arc::new(OnceLock::new());
        let (opened, settings, names, stop) =
            (Arc::clone(&log), self.settings.clone(), self.names.clone(), self.stop.clone());
        let audit = self.auth.audit().clone();
        tokio::spawn(stop.run_until_cancelled_owned(async move {
            let mut backoff = Backoff::new(MIN_PAUSE, MAX_IDLE_PAUSE);
            loop {
                match open_log(&settings, &names).await {
                    Ok(log) => {
                        audit::attach(&audit, &log, &settings, admin);
                        return opened.set(log).unwrap_or(());
                    }
                    Err(error) => tracing::debug!(%error, "the log is unavailable: no refill requests"),
                }
                tokio::time::sleep(backoff.next_pause()).await;
            }
        }));
        log
    }

    /// Connects to Redis, if the engine has one.
    pub(crate) async fn live_hours(&self) -> anyhow::Result<Option<LiveHours>> {
        let settings = &self.settings;
        match settings.engine {
            Engine::Embedded => Ok(None),
            Engine::Kafka => {
                let component = self.health.component("redis");
                let window = || LiveWindow::new(settings.redis.live_hours, Clock::system());
                let connect = || LiveHours::connect(&settings.redis, &self.names, settings.kafka.partitions, window());
                self.retry_until_ready("redis", &component, |e: &StoreError| e.next, connect).await
            }
        }
    }

    /// Opens the archive of the engine; with Kafka that is PostgreSQL. `None` if the stop signal comes first.
    pub(crate) async fn archive(&self, log: Option<&Log>) -> anyhow::Result<Option<Archive>> {
        if let Some(Log::Embedded(embedded)) = log {
            return Ok(Some(Archive::embedded(embedded.database(), self.settings.embedded.partitions)?));
        }
        let component = self.health.component("archive");
        let connect = || Archive::postgres(&self.settings.postgres, self.settings.kafka.partitions);
        self.retry_until_ready("archive", &component, |e: &StoreError| e.next, connect).await
    }

    /// Opens the index of messages, where the archive is. `None` if the stop signal comes first.
    pub(crate) async fn message_index(&self, log: &Log) -> anyhow::Result<Option<MessageIndex>> {
        if let Log::Embedded(embedded) = log {
            return Ok(Some(MessageIndex::embedded(embedded.database())?));
        }
        let component = self.health.component("message-index");
        let connect = || MessageIndex::postgres(&self.settings.postgres);
        self.retry_until_ready("message-index", &component, |e: &StoreError| e.next, connect).await
    }

    /// Runs until a stop signal or the end of a component, then closes the log.
    pub(crate) async fn run(self, log: Option<Log>) -> anyhow::Result<()> {
        let grace = self.settings.shutdown_grace.0;
        let health = self.health.clone();
        let stop = self.stop.clone();
        let drain = tokio::spawn(async move {
            stop.cancelled().await;
            health.drain();
        });
        self.starting.ready();
        let ended = self.supervisor.run().await;
        drain.abort();
        if let Some(log) = log {
            log.close(grace).await;
        }
        Ok(ended?)
    }

    /// Retries until success, the stop signal (`None`), or an error that a retry cannot resolve.
    async fn retry_until_ready<
        T,
        E: Display + Send + Sync + std::error::Error + 'static,
        F: Future<Output = Result<T, E>>,
    >(
        &self,
        what: &'static str,
        component: &Component,
        next: impl Fn(&E) -> Next,
        attempt: impl Fn() -> F,
    ) -> anyhow::Result<Option<T>> {
        let mut backoff = Backoff::new(MIN_PAUSE, MAX_PAUSE);
        loop {
            let Some(result) = self.stop.run_until_cancelled(attempt()).await else { return Ok(None) };
            let error = match result {
                Ok(done) => {
                    component.ready();
                    return Ok(Some(done));
                }
                Err(error) => error,
            };
            match next(&error) {
                Next::Stop | Next::Skip => return Err(anyhow::Error::new(error).context(what)),
                Next::Retry => {
                    component.not_ready(error.to_string());
                    warn!(component = what, error = %error, "{what} is unavailable, retrying");
                    if self.stop.run_until_cancelled(tokio::time::sleep(backoff.next_pause())).await.is_none() {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

/// Opens the log of the configured engine.
pub(crate) async fn open_log(settings: &Settings, names: &Names) -> Result<Log, LogError> {
    let (settings, names) = (settings.clone(), names.clone());
    let opened = tokio::task::spawn_blocking(move || match settings.engine {
        Engine::Kafka => KafkaLog::open(settings.kafka, names).map(Log::Kafka),
        Engine::Embedded => EmbeddedLog::open(settings.embedded, names).map(Log::Embedded),
    });
    opened.await.map_err(|e| LogError::unavailable(format!("opening the log failed: {e}")))?
}
