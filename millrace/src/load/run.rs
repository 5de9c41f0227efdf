//! One load from beginning to end: baseline, send, settle, compare.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Target;
use super::generator::Shape;
use super::oracle::{Expected, Numbers};
use super::progress;
use super::render::Renderer;
use super::report::Report;
use super::sender::{Seen, Sender, Shared};
use super::verify::{Hours, Reading};

/// Everything that decides a load.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The events.
    pub(crate) shape: Shape,
    /// Stands in every user's name, so that no other load has the same users.
    pub(crate) run: String,
    /// Where events go: connections are dealt out to these in turn.
    pub(crate) commands: Vec<Target>,
    /// Where counts come from.
    pub(crate) query: Target,
    /// Number of connections.
    pub(crate) connections: usize,
    /// Threads the connections are dealt out to.
    pub(crate) threads: usize,
    /// Events in one request; 1 posts each by itself.
    pub(crate) batch: u64,
    /// Whether events carry ids.
    pub(crate) ids: bool,
    /// Whether an event of unknown outcome is sent again; only with ids.
    pub(crate) resend_unknown: bool,
    /// Share of events that are sent twice at the same time, in hundredths of a percent; only with ids.
    pub(crate) duplicates: u32,
    /// Events a second; none means as fast as answers come.
    pub(crate) rate: Option<f64>,
    /// For one connect, one request, one answer.
    pub(crate) timeout: Duration,
    /// How long an event is offered while the service cannot take it.
    pub(crate) patience: Duration,
    /// How long the counts may take to be right.
    pub(crate) settle: Duration,
}

/// Why a load did not come to a comparison.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The counts before the load are not to be had.
    #[error("the counts before the load cannot be read: {0}")]
    Baseline(String),
    /// A thread could not be started, or died.
    #[error("a thread of the load failed: {0}")]
    Thread(String),
}

/// Runs a load and says what came of it.
pub(crate) async fn run(plan: Plan) -> Result<Report, LoadError> {
    let plan = Arc::new(plan);
    let hours: Vec<u64> = plan.shape.hour_starts().collect();
    let mut reader = Hours::new(&plan.query, plan.timeout);
    let baseline = reader.baseline(&hours, plan.settle).await.map_err(LoadError::Baseline)?;

    let shared = Arc::new(Shared::default());
    let stop = CancellationToken::new();
    let bar = tokio::spawn(progress::show(plan.shape.events, shared.clone(), stop.clone()));
    let began = Instant::now();
    let seen = send(&plan, &shared).await;
    let took = began.elapsed();
    stop.cancel();
    // A bar that fell over changes no count.
    let _ = bar.await;
    let seen = seen?;

    let expected = seen.oracle.expected(&baseline);
    let settling = Instant::now();
    let reading = reader.settle(&expected, plan.settle).await;
    Ok(report(&plan, &seen, took, &expected, reading, settling.elapsed()))
}

/// Sends all events, on threads of their own: each has its connections and its part of the oracle to itself.
async fn send(plan: &Arc<Plan>, shared: &Arc<Shared>) -> Result<Seen, LoadError> {
    let mut threads = Vec::new();
    for thread in 0..plan.threads {
        let (plan, shared) = (plan.clone(), shared.clone());
        threads.push(tokio::task::spawn_blocking(move || send_part(thread, &plan, &shared)));
    }
    let mut all = Seen::default();
    for thread in threads {
        let part = thread.await.map_err(|e| LoadError::Thread(e.to_string()))?;
        let part = part.map_err(|e| LoadError::Thread(e.to_string()))?;
        all.oracle.merge(part.oracle);
        all.latencies.merge(&part.latencies);
        all.acknowledged += part.acknowledged;
        all.refused += part.refused;
        all.unknown += part.unknown;
        all.retried += part.retried;
        all.resent += part.resent;
        all.duplicated += part.duplicated;
    }
    Ok(all)
}

fn send_part(thread: usize, plan: &Arc<Plan>, shared: &Arc<Shared>) -> std::io::Result<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let seen = Rc::new(RefCell::new(Seen::default()));
    let renderers: Vec<Rc<Renderer>> =
        plan.commands.iter().map(|target| Rc::new(Renderer::new(&plan.run, &target.authority, plan.ids))).collect();
    let begin = Instant::now();
    for connection in (thread..plan.connections).step_by(plan.threads) {
        let renderer = renderers[connection % renderers.len()].clone();
        // A twin goes to another service if there is one.
        let twin = renderers[(connection + 1) % renderers.len()].clone();
        let (plan, shared, seen) = (plan.clone(), shared.clone(), seen.clone());
        local.spawn_local(async move {
            Sender::new(&plan, &renderer, &twin, &shared, &seen, begin).run(connection as u64).await;
        });
    }
    runtime.block_on(local);
    Ok(seen.take())
}

fn report(
    plan: &Plan,
    seen: &Seen,
    took: Duration,
    expected: &BTreeMap<u64, Expected>,
    mut reading: Reading,
    settled_after: Duration,
) -> Report {
    let hours = expected.iter().map(|(&hour, &expected)| {
        let got: Result<Numbers, String> = reading.remove(&hour).unwrap_or_else(|| Err("not read".into()));
        (hour, expected, got)
    });
    Report {
        run: plan.run.clone(),
        seed: plan.shape.seed,
        events: plan.shape.events,
        acknowledged: seen.acknowledged,
        refused: seen.refused,
        unknown: seen.unknown,
        not_sent: plan.shape.events - seen.acknowledged - seen.refused - seen.unknown,
        retried: seen.retried,
        resent: seen.resent,
        duplicated: seen.duplicated,
        took,
        settled_after,
        p50: seen.latencies.quantile(0.5),
        p99: seen.latencies.quantile(0.99),
        max: seen.latencies.max(),
        hours: hours.collect(),
    }
}
