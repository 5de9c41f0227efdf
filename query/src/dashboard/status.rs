//! `GET /status`: how the pipeline does, from the metrics of this process and of those that `query.watch` names.
//!
//! For a page that anyone may see: it names what is not ready and never why. The reasons are on the admin listeners.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use millrace_contracts::{Code, metric};
use millrace_service::health::Health;
use millrace_service::telemetry;
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::peek;
use super::samples::samples;
use crate::http::Clock;

const COMMAND_EVENTS: &str = metric::COMMAND_EVENTS.name;
const LAG: &str = metric::LAG.name;
const READS: &str = metric::READS.name;
const BREAKER_OPEN: &str = metric::BREAKER_OPEN.name;

/// However many pages are open, the pipeline is looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where `/status` gets what it says.
pub(crate) struct Status {
    watch: Vec<String>,
    health: Health,
    clock: Clock,
    last: Mutex<Option<(Instant, Bytes)>>,
}

/// How the pipeline does.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Status)]
pub(crate) struct Report {
    /// When it was looked, ms since the epoch.
    at: i64,
    /// Events accepted since the processes started; none when no process looked at takes events.
    accepted: Option<u64>,
    /// Events refused, by code.
    refused: BTreeMap<String, u64>,
    /// Records behind the log's last stable offset, by role and partition.
    #[schema(value_type = BTreeMap<String, BTreeMap<String, u64>>)]
    lag: BTreeMap<String, BTreeMap<u32, u64>>,
    /// Reads answered, by tier.
    reads: BTreeMap<String, u64>,
    health: Vec<Line>,
}

/// A part of the pipeline, and whether it does its work.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Part)]
pub(crate) struct Line {
    name: String,
    ready: bool,
}

impl Status {
    pub(crate) fn new(watch: Vec<String>, health: Health, clock: Clock) -> Arc<Self> {
        Arc::new(Self { watch, health, clock, last: Mutex::new(None) })
    }

    /// The report as JSON, at most a second old. Those who ask while one is made wait for it.
    async fn report(&self) -> Bytes {
        let mut last = self.last.lock().await;
        if let Some((at, body)) = &*last
            && at.elapsed() < LOOK_EVERY
        {
            return body.clone();
        }
        let body = Bytes::from(serde_json::to_vec(&self.look().await).unwrap_or_default());
        *last = Some((Instant::now(), body.clone()));
        body
    }

    async fn look(&self) -> Report {
        let mut report = Report { at: (self.clock)(), ..Report::default() };
        report
            .health
            .extend(self.health.components().into_iter().map(|(name, ready)| Line { name: name.into(), ready }));
        report.add(&telemetry::metrics().render());
        let looks =
            self.watch.iter().map(async |at| (at, peek::get(at, "/readyz").await, peek::get(at, "/metrics").await));
        for (at, readyz, metrics) in futures::future::join_all(looks).await {
            let ready = readyz.is_some_and(|(status, _)| status == StatusCode::OK);
            report.health.push(Line { name: at.clone(), ready });
            if let Some((StatusCode::OK, text)) = metrics {
                report.add(&text);
            }
        }
        report
    }
}

impl Report {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "counts of the exporter, written as floats"
    )]
    fn add(&mut self, text: &str) {
        for sample in samples(text) {
            let value = sample.value as u64;
            let label = |name| sample.label(name).map(str::to_owned);
            match sample.name {
                COMMAND_EVENTS => match label("outcome") {
                    Some(outcome) if outcome == Code::Accepted.as_str() => {
                        *self.accepted.get_or_insert_default() += value;
                    }
                    Some(outcome) if value > 0 => *self.refused.entry(outcome).or_default() += value,
                    _ => {}
                },
                LAG => {
                    if let (Some(role), Some(Ok(partition))) = (label("role"), label("partition").map(|p| p.parse())) {
                        *self.lag.entry(role).or_default().entry(partition).or_default() += value;
                    }
                }
                READS => {
                    if let Some(tier) = label("tier") {
                        *self.reads.entry(tier).or_default() += value;
                    }
                }
                BREAKER_OPEN => {
                    if let Some(store) = label("store").filter(|_| value > 0) {
                        self.health.push(Line { name: format!("reads of {store}"), ready: false });
                    }
                }
                _ => {}
            }
        }
    }
}

pub(super) async fn answer(State(status): State<Arc<Status>>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, status.report().await).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_of_several_processes_add_up() {
        let mut report = Report::default();
        report.add("millrace_command_events_total{outcome=\"accepted\"} 5\nmillrace_command_events_total{outcome=\"overloaded\"} 0\n");
        report.add("millrace_command_events_total{outcome=\"accepted\"} 7\nmillrace_command_events_total{outcome=\"overloaded\"} 2\n");
        report.add("millrace_lag_records{role=\"processor\",partition=\"3\"} 9\nmillrace_query_reads_total{tier=\"redis\"} 1\n");
        assert_eq!(report.accepted, Some(12));
        assert_eq!(report.refused, BTreeMap::from([("overloaded".to_owned(), 2)]));
        assert_eq!(report.lag["processor"][&3], 9);
        assert_eq!(report.reads["redis"], 1);
    }
}
