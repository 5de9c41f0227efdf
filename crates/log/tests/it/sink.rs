//! Sinks: the position of the sink decides.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use millrace_contracts::{ProjectionPosition, ProjectionWrite, StoreError, Topic, WriteOutcome};
use millrace_log::{Batch, LogError, Sink, Status};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use crate::harness::{Engine, PATIENCE, append, options, run_stage, until};
use crate::numbering::Numbering;
use crate::on_both_engines;

on_both_engines!(
    a_sink_receives_every_record_once_and_caught_up,
    the_runner_resumes_at_the_sinks_position,
    a_failed_write_is_retried,
    a_stop_error_ends_the_run,
    a_position_outside_the_log_is_refused,
    a_position_of_another_log_is_refused,
    a_position_of_an_earlier_version_gains_an_identity,
);

#[derive(Default)]
pub(crate) struct Model {
    pub(crate) positions: BTreeMap<u32, u64>,
    /// Of the records before the positions.
    pub(crate) identities: BTreeMap<u32, u64>,
    pub(crate) keys: BTreeMap<u32, Vec<String>>,
    caught_up: BTreeMap<u32, bool>,
    /// Errors to return before the next success.
    pub(crate) errors: Vec<StoreError>,
    /// The number of times that a test emptied the sink.
    emptied: u32,
    /// The input topic; the events by default.
    pub(crate) topic: Option<Topic>,
    pub(crate) copy_id: u64,
}

#[derive(Clone, Default)]
pub(crate) struct Shared(pub(crate) Arc<Mutex<Model>>);

impl Sink for Shared {
    fn topic(&self) -> Topic {
        self.0.lock().unwrap().topic.unwrap_or(Topic::EVENTS)
    }

    async fn position(&mut self, partition: u32) -> Result<Option<ProjectionPosition>, StoreError> {
        let model = self.0.lock().unwrap();
        let last_record = model.identities.get(&partition).copied();
        let position = |&next_offset| ProjectionPosition { next_offset, last_record };
        Ok(model.positions.get(&partition).map(position))
    }

    fn remedy(&self) -> String {
        "ask the test".into()
    }

    fn copy_id(&self) -> u64 {
        self.0.lock().unwrap().copy_id
    }

    async fn write(&mut self, steps: &[ProjectionWrite<'_, Batch>]) -> Result<Vec<WriteOutcome>, StoreError> {
        let mut model = self.0.lock().unwrap();
        if let Some(error) = model.errors.pop() {
            return Err(error);
        }
        let mut written = Vec::new();
        for step in steps {
            let partition = step.items.partition();
            let position = model.positions.get(&partition).copied();
            if position != step.expected {
                written.push(WriteOutcome::PositionMismatch(position));
                continue;
            }
            assert!(step.items.next_offset().is_none_or(|next| next == step.next));
            let keys = step.items.iter().map(|record| String::from_utf8_lossy(record.key).into_owned());
            model.keys.entry(partition).or_default().extend(keys);
            model.positions.insert(partition, step.next);
            model.identities.remove(&partition);
            if let Some(identity) = step.last_record {
                model.identities.insert(partition, identity);
            }
            model.caught_up.insert(partition, step.caught_up);
            written.push(WriteOutcome::Applied);
        }
        Ok(written)
    }
}

pub(crate) fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

pub(crate) struct SinkRun {
    status: tokio::sync::watch::Receiver<Status>,
    stop: CancellationToken,
    pub(crate) task: tokio::task::JoinHandle<Result<(), LogError>>,
}

pub(crate) fn start(log: &millrace_log::Log, sink: &Shared) -> SinkRun {
    start_as("sinking", log, sink)
}

pub(crate) fn start_as(role: &str, log: &millrace_log::Log, sink: &Shared) -> SinkRun {
    let (options, status) = options(role, "a");
    let (log, sink, stop) = (log.clone(), sink.clone(), CancellationToken::new());
    let stopped = stop.clone();
    let task = tokio::spawn(async move { log.run_sink(move || sink.clone(), options, stopped).await });
    SinkRun { status, stop, task }
}

pub(crate) async fn end(sink_run: SinkRun) -> Result<(), LogError> {
    sink_run.stop.cancel();
    sink_run.task.await.unwrap()
}

async fn a_sink_receives_every_record_once_and_caught_up(engine: Engine) {
    let log = engine.open().await;
    append(&log, 0, numbers(0..1_500)).await;
    let sink = Shared::default();
    let running = start(&log, &sink);
    let caught_up = || async { (0..3).all(|p| sink.0.lock().unwrap().caught_up.get(&p) == Some(&true)) };
    until("all three partitions are caught up, the empty ones too", caught_up).await;
    assert_eq!(sink.0.lock().unwrap().keys[&0], numbers(0..1_500), "caught up means that every record is written");
    append(&log, 0, numbers(1_500..1_600)).await;
    until("it follows", || async { sink.0.lock().unwrap().keys[&0].len() == 1_600 }).await;
    end(running).await.unwrap();
    append(&log, 0, numbers(1_600..1_700)).await;
    let running = start(&log, &sink);
    until("it goes on", || async { sink.0.lock().unwrap().keys[&0].len() == 1_700 }).await;
    end(running).await.unwrap();
    assert_eq!(sink.0.lock().unwrap().keys[&0], numbers(0..1_700));
}

/// The offsets decide nothing, but Kafka's tools show them as lag: none remains, not even the marker of a transaction.
#[tokio::test(flavor = "multi_thread")]
async fn the_group_offsets_follow_the_sink() {
    let Some(engine) = Engine::kafka("offsets of a sink") else { return };
    let Engine::Kafka { config, .. } = &engine else { unreachable!() };
    let log = engine.open().await;
    let group: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &config.brokers)
        .set("group.id", engine.names().group("sinking"))
        .create()
        .unwrap();
    let topic = engine.names().topic(&Topic::HOURLY);
    let committed = || {
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic, 0);
        let list = group.committed_offsets(list, PATIENCE).unwrap();
        list.find_partition(&topic, 0).unwrap().offset()
    };
    let end_offset = || Offset::Offset(group.fetch_watermarks(&topic, 0, PATIENCE).unwrap().1);
    let sink = Shared::default();
    sink.0.lock().unwrap().topic = Some(Topic::HOURLY);
    let written = |count: usize| {
        let sink = sink.clone();
        move || std::future::ready(sink.0.lock().unwrap().keys.get(&0).is_some_and(|keys| keys.len() == count))
    };
    let numbering = run_stage(&log, Numbering, "numbering", "a");
    let running = start(&log, &sink);
    append(&log, 0, numbers(0..10)).await;
    until("the first are written", written(10)).await;
    until("all is committed during the run", || async { committed() == end_offset() }).await;
    append(&log, 0, numbers(10..15)).await;
    until("the rest is written", written(15)).await;
    let all = sink.0.lock().unwrap().positions[&0];
    end(running).await.unwrap();
    assert!(committed().to_raw() >= Some(all.cast_signed()), "the written position is committed at the end");
    numbering.end().await.unwrap();
}

async fn the_runner_resumes_at_the_sinks_position(engine: Engine) {
    let log = engine.open().await;
    append(&log, 0, numbers(0..300)).await;
    let sink = Shared::default();
    let running = start(&log, &sink);
    until("it caught up", || async { sink.0.lock().unwrap().positions.get(&0) == Some(&300) }).await;
    {
        // Restored from a backup during the run.
        let mut model = sink.0.lock().unwrap();
        model.positions.insert(0, 100);
        model.identities.remove(&0);
        model.keys.get_mut(&0).unwrap().truncate(100);
    }
    append(&log, 0, numbers(300..301)).await;
    until("the sink is complete again", || async { sink.0.lock().unwrap().keys[&0] == numbers(0..301) }).await;
    {
        // Emptied: every record is written again, and `caught_up` too.
        let mut model = sink.0.lock().unwrap();
        (model.positions, model.keys, model.caught_up) = Default::default();
        model.emptied += 1;
    }
    append(&log, 0, numbers(301..302)).await;
    let rebuilt = || async {
        let model = sink.0.lock().unwrap();
        model.keys.get(&0) == Some(&numbers(0..302)) && model.caught_up.get(&0) == Some(&true)
    };
    until("it was rebuilt", rebuilt).await;
    end(running).await.unwrap();
}

async fn a_failed_write_is_retried(engine: Engine) {
    let log = engine.open().await;
    let sink = Shared::default();
    let failing = || StoreError::retry("unreachable");
    sink.0.lock().unwrap().errors = vec![failing(), failing(), failing()];
    append(&log, 1, numbers(0..200)).await;
    let running = start(&log, &sink);
    until("it got through", || async { sink.0.lock().unwrap().positions.get(&1) == Some(&200) }).await;
    assert_eq!(sink.0.lock().unwrap().keys[&1], numbers(0..200));
    assert!(sink.0.lock().unwrap().errors.is_empty());
    let mut status = running.status.clone();
    let running_again = status.wait_for(|status| matches!(status, Status::Running { .. }));
    tokio::time::timeout(crate::harness::PATIENCE, running_again).await.expect("the status is reported").unwrap();
    end(running).await.unwrap();
}

async fn a_stop_error_ends_the_run(engine: Engine) {
    let log = engine.open().await;
    let sink = Shared::default();
    sink.0.lock().unwrap().errors = vec![StoreError::stop("schema newer than ours")];
    append(&log, 0, numbers(0..1)).await;
    let ended = tokio::time::timeout(crate::harness::PATIENCE, start(&log, &sink).task).await.unwrap().unwrap();
    assert_eq!(ended, Err(LogError::refused("schema newer than ours")));
    assert!(sink.0.lock().unwrap().keys.is_empty());
}

async fn a_position_outside_the_log_is_refused(engine: Engine) {
    let log = engine.open().await;
    append(&log, 0, numbers(0..10)).await;
    let sink = Shared::default();
    sink.0.lock().unwrap().positions.insert(0, 5_000);
    let ended = tokio::time::timeout(crate::harness::PATIENCE, start(&log, &sink).task).await.unwrap().unwrap();
    assert!(matches!(&ended, Err(LogError::Refused(why)) if why.detail.contains("5000")), "{ended:?}");
}

/// As after a power cut of a single broker, with a recreated topic, or with the files of another log.
async fn a_position_of_another_log_is_refused(engine: Engine) {
    let sink = Shared::default();
    let of_both = |log: &millrace_log::Log| {
        let (log, sink) = (log.clone(), sink.clone());
        async move {
            let running = start(&log, &sink);
            until("it caught up", || async { sink.0.lock().unwrap().positions.get(&0) == Some(&10) }).await;
            end(running).await.unwrap();
        }
    };
    let log = engine.open().await;
    append(&log, 0, numbers(0..10)).await;
    of_both(&log).await;
    of_both(&log).await;
    drop(log);

    let log = engine.another().open().await;
    let refused = async || {
        let ended = tokio::time::timeout(crate::harness::PATIENCE, start(&log, &sink).task).await.unwrap().unwrap();
        let Err(LogError::Refused(why)) = ended else { panic!("{ended:?}") };
        assert!(why.detail.ends_with("To go on, ask the test"), "{why}");
        why.detail
    };
    assert!(refused().await.contains("holds offsets 0 to 0"));
    append(&log, 0, numbers(20..40)).await;
    assert!(refused().await.contains("analytics.events/0: the record before offset 10 is not the one"));
    assert_eq!(sink.0.lock().unwrap().keys[&0], numbers(0..10), "nothing was left out");
}

async fn a_position_of_an_earlier_version_gains_an_identity(engine: Engine) {
    let log = engine.open().await;
    append(&log, 0, numbers(0..10)).await;
    let sink = Shared::default();
    sink.0.lock().unwrap().positions.insert(0, 5);
    let running = start(&log, &sink);
    until("it goes on", || async { sink.0.lock().unwrap().positions[&0] == 10 }).await;
    end(running).await.unwrap();
    assert_eq!(sink.0.lock().unwrap().keys[&0], numbers(5..10));
    assert!(sink.0.lock().unwrap().identities.contains_key(&0));
}
