//! Metrics: outcomes, steps, and the lag of a sink while it is unavailable and after it recovers.

use std::sync::LazyLock;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use millrace_contracts::{StoreError, Topic};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::harness::{Engine, PATIENCE, append, run_stage, until};
use crate::numbering::{Numbering, check_numbers};
use crate::on_both_engines;
use crate::sink::{Shared, end, start_as};

on_both_engines!(
    reports_lag_while_the_sink_is_unavailable,
    a_transaction_marker_at_the_end_is_no_lag,
    steps_and_outcomes_are_counted,
);

/// The recorder of the process, installed before any log: each test has a role of its own.
pub(crate) static RECORDER: LazyLock<PrometheusHandle> =
    LazyLock::new(|| PrometheusBuilder::new().install_recorder().unwrap());

/// The value of a metric with these labels.
pub(crate) fn value(name: &str, labels: &[&str]) -> Option<f64> {
    let rendered = RECORDER.render();
    let matches = |line: &&str| line.starts_with(name) && labels.iter().all(|label| line.contains(label));
    rendered.lines().find(matches)?.rsplit_once(' ')?.1.parse().ok()
}

async fn reports_lag_while_the_sink_is_unavailable(engine: Engine) {
    let log = engine.open().await;
    append(&log, 1, (0..400).map(|n| n.to_string())).await;
    let sink = Shared::default();
    sink.0.lock().unwrap().errors = vec![StoreError::retry("unreachable"); 10_000];
    let role = millrace_testkit::unique("lagging");
    let running = start_as(&role, &log, &sink);
    let role = format!("role=\"{role}\"");
    let lag = || value("millrace_lag_records", &[&role, "partition=\"1\""]);
    until("the lag is the backlog", || async { lag() == Some(400.0) }).await;
    sink.0.lock().unwrap().errors.clear();
    until("the lag is 0", || async { lag() == Some(0.0) }).await;
    end(running).await.unwrap();
}

/// After the last record of a transaction follows its marker, which has an offset but is never written.
async fn a_transaction_marker_at_the_end_is_no_lag(engine: Engine) {
    let log = engine.open().await;
    let counting = run_stage(&log, Numbering, &millrace_testkit::unique("marking"), "a");
    append(&log, 1, (0..10).map(|n| n.to_string())).await;
    until("all are numbered", || async { check_numbers(&log).await == 10 }).await;
    counting.end().await.unwrap();
    // The first report covers every partition.
    let (role, sink) = (millrace_testkit::unique("marked"), Shared::default());
    sink.0.lock().unwrap().topic = Some(Topic::HOURLY);
    let running = start_as(&role, &log, &sink);
    let role = format!("role=\"{role}\"");
    let lag = || value("millrace_lag_records", &[&role, "partition=\"1\""]);
    until("the lag is 0", || async { lag() == Some(0.0) }).await;
    end(running).await.unwrap();
}

/// Readers stop before an open transaction, at a lag of 0.
#[tokio::test(flavor = "multi_thread")]
async fn records_of_an_open_transaction_are_reported() {
    let Some(engine) = Engine::kafka("an open transaction") else { return };
    let Engine::Kafka { config, .. } = &engine else { unreachable!() };
    let log = engine.open().await;
    let (role, sink) = (millrace_testkit::unique("waiting"), Shared::default());
    let running = start_as(&role, &log, &sink);
    let role = format!("role=\"{role}\"");
    let of = |name| value(name, &[&role, "partition=\"1\""]);
    let reported = async |open: f64| {
        until("the open records are reported", || async {
            of("millrace_open_records") == Some(open) && of("millrace_lag_records") == Some(0.0)
        })
        .await;
    };
    let mut client = rdkafka::ClientConfig::new();
    client.set("bootstrap.servers", &config.brokers).set("transactional.id", millrace_testkit::unique("open"));
    let producer: BaseProducer = client.create().unwrap();
    let topic = engine.names().topic(&Topic::EVENTS);
    tokio::task::block_in_place(|| {
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        let record = BaseRecord::to(&topic).partition(1).key("k").payload("v");
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(PATIENCE).unwrap();
    });
    reported(1.0).await;
    tokio::task::block_in_place(|| producer.abort_transaction(PATIENCE).unwrap());
    reported(0.0).await;
    end(running).await.unwrap();
}

async fn steps_and_outcomes_are_counted(engine: Engine) {
    let acknowledged = || value("millrace_append_records_total", &["acknowledged"]).unwrap_or(0.0);
    let log = engine.open().await;
    let before = acknowledged();
    append(&log, 0, (0..100).map(|n| n.to_string())).await;
    assert!(acknowledged() >= before + 100.0);
    let role = millrace_testkit::unique("stepping");
    let running = run_stage(&log, Numbering, &role, "a");
    until("all are numbered", || async { check_numbers(&log).await == 100 }).await;
    let role = format!("role=\"{role}\"");
    let count = |name| value(name, &[&role]).unwrap_or(0.0);
    until("the step is reported", || async { count("millrace_stage_steps_total") >= 1.0 }).await;
    assert!(count("millrace_stage_step_seconds_count") >= 1.0 && count("millrace_stage_commit_seconds_count") >= 1.0);
    assert!(count("millrace_restore_seconds_count") >= 1.0);
    assert_eq!((count("millrace_restore_offsets_done"), count("millrace_stage_aborts_total")), (0.0, 0.0));
    running.end().await.unwrap();
}
