//! A load from beginning to end: baseline, send, settle, compare.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::oracle::{Expected, Numbers};
use super::plan::Plan;
use super::progress::{self, Progress};
use super::render::Renderer;
use super::report::Report;
use super::sender::Sender;
use super::tally::Tally;
use super::verify::{Hours, Reading};

/// Why a load ended without a comparison.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The counts before the load are unavailable.
    #[error("the counts before the load cannot be read: {0}")]
    Baseline(String),
    /// No event was acknowledged, because no connection opened.
    #[error("no event was acknowledged: {0}")]
    Unreachable(String),
    /// A thread did not start, or panicked.
    #[error("a thread of the load failed: {0}")]
    Thread(String),
}

/// Runs a load and compares the counts with the expected ones.
pub(crate) async fn run(plan: Plan) -> Result<Report, LoadError> {
    let plan = Arc::new(plan);
    let hours: Vec<u64> = plan.shape.hour_starts().collect();
    let mut reader = Hours::new(&plan.query, plan.timeout);
    let baseline = reader.baseline(&hours, plan.settle).await.map_err(LoadError::Baseline)?;

    let progress = Arc::new(Progress::default());
    // An interrupt ends the sending, not the comparison, which has a bound of its own.
    let interrupt = tokio::spawn({
        let stop = progress.stop.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.cancel();
            }
        }
    });
    let stop = CancellationToken::new();
    let bar = tokio::spawn(progress::show(plan.shape.events, progress.clone(), stop.clone()));
    let began = Instant::now();
    let tally = send(&plan, &progress).await;
    let took = began.elapsed();
    stop.cancel();
    // A panic of the bar has no effect on the counts.
    let _ = bar.await;
    interrupt.abort();
    let tally = tally?;
    if let (0, 0, Some(why)) = (tally.acknowledged, tally.unknown, progress.why_unreachable()) {
        return Err(LoadError::Unreachable(why));
    }

    let expected = tally.oracle.expected(&baseline);
    let settling = Instant::now();
    let reading = reader.settle(&expected, plan.settle).await;
    Ok(report(&plan, &tally, took, &expected, reading, settling.elapsed()))
}

/// Sends all events, on threads of their own: each has its connections and its part of the oracle to itself.
async fn send(plan: &Arc<Plan>, progress: &Arc<Progress>) -> Result<Tally, LoadError> {
    let mut threads = Vec::new();
    for thread in 0..plan.threads {
        let (plan, progress) = (plan.clone(), progress.clone());
        threads.push(tokio::task::spawn_blocking(move || send_part(thread, &plan, &progress)));
    }
    let mut all = Tally::default();
    for thread in threads {
        let part = thread.await.map_err(|e| LoadError::Thread(e.to_string()))?;
        all.merge(part.map_err(|e| LoadError::Thread(e.to_string()))?);
    }
    Ok(all)
}

fn send_part(thread: usize, plan: &Arc<Plan>, progress: &Arc<Progress>) -> std::io::Result<Tally> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let tally = Rc::new(RefCell::new(Tally::default()));
    let renderers: Vec<Rc<Renderer>> =
        plan.commands.iter().map(|target| Rc::new(Renderer::new(&plan.run, target, plan.ids))).collect();
    let begin = Instant::now();
    for connection in (thread..plan.connections).step_by(plan.threads) {
        let renderer = renderers[connection % renderers.len()].clone();
        // Duplicates go to another service if there are several.
        let duplicates = renderers[(connection + 1) % renderers.len()].clone();
        let (plan, progress, tally) = (plan.clone(), progress.clone(), tally.clone());
        local.spawn_local(async move {
            Sender::new(&plan, &renderer, &duplicates, &progress, &tally, begin).run(connection as u64).await;
        });
    }
    runtime.block_on(local);
    Ok(tally.take())
}

fn report(
    plan: &Plan,
    tally: &Tally,
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
        acknowledged: tally.acknowledged,
        refused: tally.refused,
        unknown: tally.unknown,
        not_sent: plan.shape.events - tally.acknowledged - tally.refused - tally.unknown,
        retried: tally.retried,
        resent: tally.resent,
        duplicated: tally.duplicated,
        took,
        settled_after,
        p50: tally.latencies.quantile(0.5),
        p99: tally.latencies.quantile(0.99),
        max: tally.latencies.max(),
        hours: hours.collect(),
    }
}
