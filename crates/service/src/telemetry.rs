//! Logs and metrics, set up once per process. Logs go to standard error, with control characters escaped. The admin
//! listener renders the metrics.

mod values;

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use millrace_base::{Bounds, Violation};
use millrace_contracts::metric::{self, Metric, MetricKind};
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

pub use values::MetricValues;
use values::ReadableRecorder;

/// Settings of the logs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// Filter of log messages, in the syntax of tracing: `info`, or `warn,millrace_log=debug`.
    pub level: String,
    /// Format of log lines.
    pub format: LogFormat,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { level: "info,fjall=warn,lsm_tree=warn".into(), format: LogFormat::Text }
    }
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is not a filter.
    #[error("telemetry.level is not a filter such as \"info\" or \"warn,millrace_log=debug\": {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Logging is set up already in this process.
    #[error("logging is set up already")]
    Twice,
}

impl TelemetryConfig {
    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let mut bounds = Bounds::new();
        if let Err(error) = EnvFilter::builder().parse(&self.level) {
            bounds.check(false, "level", format_args!("a filter such as info: {error}"));
        }
        bounds.into_violations()
    }
}

/// Sets up logging to standard error, and the metrics.
pub fn init(config: &TelemetryConfig) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(&config.level)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let lines = lines.with_ansi(std::io::stderr().is_terminal());
    let installed = match config.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    metrics();
    installed.map_err(|_| TelemetryError::Twice)
}

/// The exporter of this process, which renders its metrics as text. The first call installs it, with every metric's help.
/// If another library has installed a recorder before, the exporter renders nothing.
pub fn metrics() -> PrometheusHandle {
    installed().0.clone()
}

/// The values of the metrics that this process reads itself.
pub fn metric_values() -> MetricValues {
    installed().1.clone()
}

fn installed() -> &'static (PrometheusHandle, MetricValues) {
    static INSTALLED: OnceLock<(PrometheusHandle, MetricValues)> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let (exporter, values) = (recorder(), MetricValues::default());
        let handle = exporter.handle();
        if metrics::set_global_recorder(ReadableRecorder { exporter, values: values.clone() }).is_err() {
            tracing::warn!("a metrics recorder is installed already; /metrics stays empty");
        }
        metric::ALL.iter().for_each(describe);
        crate::http::register_metrics();
        crate::audit::register_metrics();
        crate::auth::register_metrics();
        (handle, values)
    })
}

fn recorder() -> PrometheusRecorder {
    let builder = PrometheusBuilder::new().set_buckets(&metric::SECONDS_BUCKETS);
    builder.expect("there are buckets").build_recorder()
}

/// Gives the recorder a metric's help text.
fn describe(metric: &Metric) {
    match metric.kind {
        MetricKind::Counter => metrics::describe_counter!(metric.name, metric.help),
        MetricKind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
        MetricKind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
    }
}
