//! `GET /status`: the state of the pipeline, from the metrics of this process and of those in `query.watch`.
//!
//! The dashboard is public, so the report names components that are not ready, but no reasons: those are on the admin
//! listeners.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use millrace_base::Clock;
use millrace_contracts::{Code, metric};
use millrace_service::auth::Authenticator;
use millrace_service::health::Health;
use millrace_service::{ServiceContext, telemetry};
use prometheus_parse::{Scrape, Value};
use serde::Serialize;
use tokio::sync::Mutex;
use utoipa::ToSchema;

use super::scrape;

const COMMAND_EVENTS: &str = metric::COMMAND_EVENTS.name;
const LAG: &str = metric::LAG.name;
const READS: &str = metric::READS.name;
const BREAKER_OPEN: &str = metric::BREAKER_OPEN.name;

/// How long a report is cached, for all dashboards together.
const REPORT_TTL: Duration = Duration::from_secs(1);

/// Makes the reports, and caches the last one.
pub(crate) struct StatusReporter {
    watch: Vec<String>,
    health: Health,
    auth: Authenticator,
    clock: Clock,
    cached: Mutex<Option<(Instant, Bytes)>>,
}

/// The state of the pipeline.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Status)]
pub(crate) struct StatusReport {
    /// When the report was made, in ms since the epoch.
    at: i64,
    /// Events accepted since the processes started; null if none of them takes events.
    accepted: Option<u64>,
    /// Events refused since the processes started, by code.
    refused: BTreeMap<String, u64>,
    /// Records behind the last stable offset of the log, by role and partition.
    #[schema(value_type = BTreeMap<String, BTreeMap<String, u64>>)]
    lag: BTreeMap<String, BTreeMap<u32, u64>>,
    /// Reads served since the processes started, by tier.
    reads: BTreeMap<String, u64>,
    health: Vec<ComponentStatus>,
}

/// A component of the pipeline.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Component)]
pub(crate) struct ComponentStatus {
    name: String,
    ready: bool,
}

impl StatusReporter {
    /// A reporter on this process and on those with the admin listeners `watch`.
    pub(crate) fn new(watch: Vec<String>, context: &ServiceContext, clock: Clock) -> Arc<Self> {
        let (health, auth) = (context.health.clone(), context.auth.clone());
        Arc::new(Self { watch, health, auth, clock, cached: Mutex::new(None) })
    }

    /// The report as JSON, at most a second old. Concurrent requests share one report.
    async fn report(&self) -> Bytes {
        let mut cached = self.cached.lock().await;
        if let Some((at, body)) = &*cached
            && at.elapsed() < REPORT_TTL
        {
            return body.clone();
        }
        let mut body = serde_json::to_vec(&self.collect().await).unwrap_or_default();
        body.push(b'\n');
        let body = Bytes::from(body);
        *cached = Some((Instant::now(), body.clone()));
        body
    }

    async fn collect(&self) -> StatusReport {
        let mut report = StatusReport { at: self.clock.now_ms(), ..StatusReport::default() };
        let components = self.health.components().into_iter();
        report.health.extend(components.map(|(name, ready)| ComponentStatus { name: name.into(), ready }));
        for (key, value) in telemetry::metric_values().snapshot() {
            let label = |name: &str| key.labels().find(|label| label.key() == name).map(metrics::Label::value);
            report.add(key.name(), label, value);
        }
        let key = self.auth.outgoing();
        let scrapes = self.watch.iter().map(async |address| {
            let get = async |path| scrape::get(address, path, key.clone()).await;
            (address, get("/readyz").await, get("/metrics").await)
        });
        for (address, readyz, metrics) in futures::future::join_all(scrapes).await {
            let ready = readyz.is_some_and(|(status, _)| status == StatusCode::OK);
            report.health.push(ComponentStatus { name: address.clone(), ready });
            if let Some((StatusCode::OK, text)) = metrics {
                report.add_scraped(&text);
            }
        }
        report
    }
}

impl StatusReport {
    /// Adds the metrics of another process, in Prometheus' text format.
    fn add_scraped(&mut self, text: &str) {
        let Ok(scraped) = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))) else { return };
        for sample in scraped.samples {
            if let Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) = sample.value {
                self.add(&sample.metric, |name| sample.labels.get(name), value);
            }
        }
    }

    /// Adds one series.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts, exported as floats")]
    fn add<'a>(&mut self, name: &str, label: impl Fn(&str) -> Option<&'a str>, value: f64) {
        let value = value as u64;
        match name {
            COMMAND_EVENTS => match label("outcome") {
                Some(outcome) if outcome == Code::Accepted.as_str() => {
                    *self.accepted.get_or_insert_default() += value;
                }
                Some(outcome) if value > 0 => *self.refused.entry(outcome.to_owned()).or_default() += value,
                _ => {}
            },
            LAG => {
                if let (Some(role), Some(Ok(partition))) = (label("role"), label("partition").map(str::parse)) {
                    *self.lag.entry(role.to_owned()).or_default().entry(partition).or_default() += value;
                }
            }
            READS => {
                if let Some(tier) = label("tier") {
                    *self.reads.entry(tier.to_owned()).or_default() += value;
                }
            }
            BREAKER_OPEN => {
                if let Some(store) = label("store").filter(|_| value > 0) {
                    self.health.push(ComponentStatus { name: format!("reads of {store}"), ready: false });
                }
            }
            _ => {}
        }
    }
}

pub(super) async fn status(State(reporter): State<Arc<StatusReporter>>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (headers, reporter.report().await).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adds_up_the_metrics_of_several_processes() {
        let mut report = StatusReport::default();
        report.add_scraped(
            "# HELP millrace_command_events_total Events\n# TYPE millrace_command_events_total counter\n\
             millrace_command_events_total{outcome=\"accepted\"} 5\nmillrace_command_events_total{outcome=\"overloaded\"} 0\n",
        );
        report.add_scraped(
            "# TYPE millrace_command_events_total counter\n\
             millrace_command_events_total{outcome=\"accepted\"} 7\nmillrace_command_events_total{outcome=\"overloaded\"} 2\n",
        );
        report.add_scraped(
            "# TYPE millrace_lag_records gauge\nmillrace_lag_records{role=\"processor\",partition=\"3\"} 9\n\n\
             millrace_query_reads_total{tier=\"redis\"} 1\n\
             # TYPE millrace_query_breaker_open gauge\nmillrace_query_breaker_open{store=\"redis\"} 1\n",
        );
        assert_eq!(report.accepted, Some(12));
        assert_eq!(report.refused, BTreeMap::from([("overloaded".to_owned(), 2)]));
        assert_eq!(report.lag["processor"][&3], 9);
        assert_eq!(report.reads["redis"], 1);
        assert_eq!((report.health[0].name.as_str(), report.health[0].ready), ("reads of redis", false));
    }
}
