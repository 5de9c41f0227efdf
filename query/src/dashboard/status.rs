//! `GET /status`: the state of the pipeline, from the metrics of this process and of those in `query.watch`.
//!
//! The dashboard is public, so the report names components that are not ready, but no reasons: those are on the admin
//! listeners.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
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
use crate::config::Config;
use crate::stores::port::HourReader;

/// How long a report is cached, for all dashboards together.
const REPORT_TTL: Duration = Duration::from_secs(1);

/// Makes the reports, and caches the last one.
pub(crate) struct StatusReporter {
    watch: Vec<String>,
    engine: &'static str,
    admin: SocketAddr,
    command_url: Option<String>,
    hours: Arc<dyn HourReader>,
    health: Health,
    auth: Authenticator,
    clock: Clock,
    cached: Mutex<Cached>,
}

#[derive(Default)]
struct Cached {
    report: Option<(Instant, Bytes)>,
    /// The components of each watched process when it was last reached: those of one that is gone have names, too.
    components: HashMap<String, Vec<String>>,
}

/// The state of the pipeline.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Status)]
pub(crate) struct StatusReport {
    /// When the report was made, in ms since the epoch.
    at: i64,
    version: &'static str,
    /// `embedded` or `kafka`.
    engine: &'static str,
    /// The admin listener of this process, which has `/metrics`.
    admin: String,
    /// The URL of the write side as browsers reach it; null if it is not known.
    command_url: Option<String>,
    /// What to know while counts lag behind the log by more than `query.stale_after`: "counting stopped 40 s ago, 16,000
    /// events waiting"; else null. Also in `/readyz`.
    counting: Option<String>,
    /// Events accepted since the processes started; null if none of them takes events.
    accepted: Option<u64>,
    /// Events refused since the processes started, by code.
    refused: BTreeMap<String, u64>,
    /// Intake over TCP; null if none of the processes has it.
    tcp: Option<TcpStatus>,
    /// Records behind the last stable offset of the log, by role and partition.
    #[schema(value_type = BTreeMap<String, BTreeMap<String, u64>>)]
    lag: BTreeMap<String, BTreeMap<u32, u64>>,
    /// Reads served since the processes started, by tier.
    reads: BTreeMap<String, u64>,
    health: Vec<ComponentStatus>,
    /// Watched processes that cannot be reached, by their admin listeners: what they count is missing above.
    unreachable: Vec<String>,
}

/// Intake over TCP.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = TcpStatus)]
pub(crate) struct TcpStatus {
    /// Open ones.
    connections: u64,
    /// Connections that were not served since the processes started.
    connections_refused: u64,
    /// Messages acknowledged since the processes started.
    acknowledged: u64,
    /// Messages refused since the processes started, by the word of the reply; `unknown`: closed without one.
    refused: BTreeMap<String, u64>,
    /// Messages passed on to the journal since the processes started: each once.
    journaled: u64,
}

/// A component of the pipeline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Component)]
pub(crate) struct ComponentStatus {
    name: String,
    /// The admin listener of its process; null in the process that reports.
    process: Option<String>,
    ready: bool,
}

impl StatusReporter {
    /// A reporter on this process and on those with the admin listeners of `query.watch`.
    pub(crate) fn new(
        config: &Config,
        engine: &'static str,
        hours: Arc<dyn HourReader>,
        context: &ServiceContext,
        clock: Clock,
    ) -> Arc<Self> {
        let (watch, health, auth) = (config.watch.clone(), context.health.clone(), context.auth.clone());
        let (admin, command_url) = (config.admin, Some(config.command_url.0.clone()).filter(|url| !url.is_empty()));
        Arc::new(Self { watch, engine, admin, command_url, hours, health, auth, clock, cached: Mutex::default() })
    }

    /// The report as JSON, at most a second old. Concurrent requests share one report.
    async fn report(&self) -> Bytes {
        let mut cached = self.cached.lock().await;
        if let Some((at, body)) = &cached.report
            && at.elapsed() < REPORT_TTL
        {
            return body.clone();
        }
        let report = self.collect(&mut cached.components).await;
        let mut body = serde_json::to_vec(&report).unwrap_or_default();
        body.push(b'\n');
        let body = Bytes::from(body);
        cached.report = Some((Instant::now(), body.clone()));
        body
    }

    async fn collect(&self, known: &mut HashMap<String, Vec<String>>) -> StatusReport {
        let (at, version, engine) = (self.clock.now_ms(), env!("CARGO_PKG_VERSION"), self.engine);
        let (admin, command_url, counting) = (self.admin.to_string(), self.command_url.clone(), self.hours.notice());
        let mut report = StatusReport { at, version, engine, admin, command_url, counting, ..StatusReport::default() };
        let own = self.health.components().into_iter();
        report.health.extend(own.map(|(name, ready)| ComponentStatus { name: name.into(), process: None, ready }));
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
            let metrics = metrics.filter(|(status, _)| *status == StatusCode::OK).map(|(_, text)| text);
            report.add_process(address, ready, metrics.as_deref(), known);
        }
        report
    }
}

impl StatusReport {
    /// Adds a watched process: its metrics, if it can be reached, and its components.
    fn add_process(
        &mut self,
        address: &str,
        ready: bool,
        metrics: Option<&str>,
        known: &mut HashMap<String, Vec<String>>,
    ) {
        let component = |name: &str, ready| ComponentStatus { name: name.into(), process: Some(address.into()), ready };
        let components = metrics.map(|text| self.add_scraped(text)).unwrap_or_default();
        if metrics.is_none() {
            self.unreachable.push(address.to_owned());
        }
        if components.is_empty() {
            let names = known.get(address).cloned().unwrap_or_else(|| vec![address.to_owned()]);
            self.health.extend(names.iter().map(|name| component(name, ready && metrics.is_some())));
            return;
        }
        known.insert(address.to_owned(), components.keys().cloned().collect());
        // A process that shuts down is not ready, whatever its components are.
        let ends = !ready && components.values().all(|ready| *ready);
        self.health.extend(components.iter().map(|(name, ready)| component(name, *ready && !ends)));
    }

    /// Adds the metrics of another process, in Prometheus' text format. Returns its components, and whether each is ready.
    fn add_scraped(&mut self, text: &str) -> BTreeMap<String, bool> {
        let mut components = BTreeMap::new();
        let Ok(scraped) = Scrape::parse(text.lines().map(|line| Ok(line.to_owned()))) else { return components };
        for sample in scraped.samples {
            if let Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) = sample.value {
                if sample.metric == metric::COMPONENT_READY.name
                    && let Some(name) = sample.labels.get("component")
                {
                    components.insert(name.to_owned(), value > 0.0);
                }
                self.add(&sample.metric, |name| sample.labels.get(name), value);
            }
        }
        components
    }

    /// Adds one series.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts, exported as floats")]
    fn add<'a>(&mut self, name: &str, label: impl Fn(&str) -> Option<&'a str>, value: f64) {
        let value = value as u64;
        if name == metric::COMMAND_EVENTS.name {
            match label("outcome") {
                Some(outcome) if outcome == Code::Accepted.as_str() => {
                    *self.accepted.get_or_insert_default() += value;
                }
                Some(outcome) if value > 0 => *self.refused.entry(outcome.to_owned()).or_default() += value,
                _ => {}
            }
        } else if name == metric::LAG.name {
            if let (Some(role), Some(Ok(partition))) = (label("role"), label("partition").map(str::parse)) {
                *self.lag.entry(role.to_owned()).or_default().entry(partition).or_default() += value;
            }
        } else if name == metric::READS.name {
            if let Some(tier) = label("tier") {
                *self.reads.entry(tier.to_owned()).or_default() += value;
            }
        } else if name == metric::BREAKER_OPEN.name {
            if let Some(store) = label("store").filter(|_| value > 0) {
                self.health.push(ComponentStatus { name: format!("reads of {store}"), process: None, ready: false });
            }
        } else if name == metric::FAILED_PARTITION.name {
            if let (Some(role), Some(partition)) = (label("role"), label("partition").filter(|_| value > 0)) {
                let name = format!("{role} partition {partition}");
                self.health.push(ComponentStatus { name, process: None, ready: false });
            }
        } else if name == metric::TCP_CONNECTIONS.name {
            self.tcp.get_or_insert_default().connections += value;
        } else if name == metric::TCP_REFUSED.name {
            self.tcp.get_or_insert_default().connections_refused += value;
        } else if name == metric::TCP_FRAMES.name {
            let tcp = self.tcp.get_or_insert_default();
            match label("outcome") {
                Some("acked") => tcp.acknowledged += value,
                Some(outcome) if value > 0 => *tcp.refused.entry(outcome.to_owned()).or_default() += value,
                _ => {}
            }
        } else if name == metric::INTAKE_MESSAGES.name && label("outcome") == Some("journaled") && value > 0 {
            self.tcp.get_or_insert_default().journaled += value;
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
             # TYPE millrace_query_breaker_open gauge\nmillrace_query_breaker_open{store=\"redis\"} 1\n\
             # TYPE millrace_stage_partition_failed gauge\n\
             millrace_stage_partition_failed{role=\"processor\",partition=\"3\"} 1\n\
             millrace_stage_partition_failed{role=\"processor\",partition=\"4\"} 0\n",
        );
        assert_eq!(report.accepted, Some(12));
        assert_eq!(report.refused, BTreeMap::from([("overloaded".to_owned(), 2)]));
        assert_eq!(report.lag["processor"][&3], 9);
        assert_eq!(report.reads["redis"], 1);
        let not_ready: Vec<&str> = report.health.iter().filter(|one| !one.ready).map(|one| one.name.as_str()).collect();
        assert_eq!(not_ready, ["reads of redis", "processor partition 3"]);
        assert!(report.tcp.is_none());
        report.add_scraped(
            "# TYPE millrace_tcp_connections gauge\nmillrace_tcp_connections 2\n\
             # TYPE millrace_tcp_frames_total counter\nmillrace_tcp_frames_total{outcome=\"acked\"} 8\n\
             millrace_tcp_frames_total{outcome=\"busy\"} 3\nmillrace_tcp_frames_total{outcome=\"unknown\"} 0\n\
             # TYPE millrace_intake_messages_total counter\nmillrace_intake_messages_total{outcome=\"journaled\"} 7\n\
             millrace_intake_messages_total{outcome=\"duplicate\"} 1\n",
        );
        let tcp = report.tcp.unwrap();
        assert_eq!((tcp.connections, tcp.acknowledged, tcp.journaled), (2, 8, 7));
        assert_eq!(tcp.refused, BTreeMap::from([("busy".to_owned(), 3)]));
    }

    #[test]
    fn components_of_a_process_that_is_gone_keep_their_names() {
        let mut known = HashMap::new();
        let metrics = "# TYPE millrace_component_ready gauge\nmillrace_component_ready{component=\"processor\"} 1\n";
        let mut health = |ready, metrics| {
            let mut report = StatusReport::default();
            report.add_process("there:1", ready, metrics, &mut known);
            let [ComponentStatus { name, process: Some(_), ready }] = &*report.health else { panic!("{report:?}") };
            (name.clone(), *ready, report.unreachable.len())
        };
        assert_eq!(health(false, None), ("there:1".into(), false, 1));
        assert_eq!(health(true, Some(metrics)), ("processor".into(), true, 0));
        assert_eq!(health(false, Some(metrics)), ("processor".into(), false, 0), "it shuts down");
        assert_eq!(health(false, None), ("processor".into(), false, 1));
        assert_eq!(health(true, Some("")), ("processor".into(), true, 0), "of a version without the metric");
    }
}
