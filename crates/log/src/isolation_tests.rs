//! A small stage on both engines: a partition that fails leaves the other running, and the next owner ends what another one
//! left open. `tests/it` has the same in more detail.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millrace_base::Span;
use millrace_contracts::{Names, TOPICS, Topic};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    Batch, EmbeddedConfig, EmbeddedLog, KafkaConfig, KafkaLog, Limits, Log, LogError, NewRecord, Outcome, PollOutcome,
    RunOptions, Stage, StageError, Status, Step,
};

const PATIENCE: Duration = Duration::from_mins(1);

/// Counts the records of each partition. Partition 1 can be made to fail.
#[derive(Clone, Default)]
struct Counts(Arc<Shared>);

#[derive(Default)]
struct Shared {
    durable: Mutex<BTreeMap<u32, u64>>,
    refuse_load: AtomicBool,
    refuse_apply: AtomicBool,
}

fn refused(flag: &AtomicBool, partition: u32) -> Result<(), StageError> {
    if partition == 1 && flag.load(Ordering::Acquire) {
        return Err(StageError::ForeignChange { key: "n".into(), why: "refused by the test".into() });
    }
    Ok(())
}

impl Stage for Counts {
    type State = (u32, u64);
    type Undo = u64;

    fn input(&self) -> Topic {
        Topic::EVENTS
    }

    fn changes(&self) -> Topic {
        Topic::STATE
    }

    fn outputs(&self) -> &'static [Topic] {
        &[Topic::HOURLY]
    }

    fn new_state(&self, partition: u32) -> (u32, u64) {
        (partition, 0)
    }

    fn load(&self, state: &mut (u32, u64), _: &[u8], value: &[u8]) -> Result<(), StageError> {
        refused(&self.0.refuse_load, state.0)?;
        state.1 = u64::from_be_bytes(value.try_into().unwrap());
        Ok(())
    }

    fn apply(&self, state: &mut (u32, u64), batch: &Batch, step: &mut Step) -> Result<u64, StageError> {
        refused(&self.0.refuse_apply, state.0)?;
        let before = state.1;
        state.1 += batch.len() as u64;
        for topic in [Topic::STATE, Topic::HOURLY] {
            step.put(topic, state.0, "n", |out| out.extend(state.1.to_be_bytes()));
        }
        Ok(before)
    }

    fn undo(&self, state: &mut (u32, u64), before: u64) {
        state.1 = before;
    }

    fn committed(&self, state: &mut (u32, u64), _: u64) {
        self.0.durable.lock().unwrap().insert(state.0, state.1);
    }
}

struct Running {
    status: watch::Receiver<Status>,
    stop: CancellationToken,
    task: JoinHandle<Result<(), LogError>>,
}

impl Counts {
    fn run(&self, log: &Log, instance: &str) -> Running {
        let (status, seen) = watch::channel(Status::Starting);
        let (role, instance) = ("counts".into(), instance.into());
        let options = RunOptions { role, instance, workers: 1, step: Limits::default(), status };
        let (log, stage, stop) = (log.clone(), self.clone(), CancellationToken::new());
        let stopped = stop.clone();
        Running { status: seen, stop, task: tokio::spawn(async move { log.run_stage(stage, options, stopped).await }) }
    }

    async fn reaches(&self, counts: [u64; 2]) {
        let expected = BTreeMap::from([(0, counts[0]), (1, counts[1])]);
        until(&format!("{counts:?}"), || *self.0.durable.lock().unwrap() == expected).await;
    }
}

impl Running {
    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn append(log: &Log, partitions: &[u32]) {
    for &partition in partitions {
        let record = NewRecord { topic: Topic::EVENTS, partition, key: b"k", value: b"v" };
        let outcomes = log.append(&[record; 10]).await;
        assert!(outcomes.iter().all(|one| matches!(one, Outcome::Acknowledged(_))), "{outcomes:?}");
    }
}

/// Partition 1 fails and recovers, in a step and in a restore; partition 0 goes on.
async fn one_partition_fails(log: Log) {
    log.create_topics().await.unwrap();
    let stage = Counts::default();
    append(&log, &[0, 1]).await;
    let mut running = stage.run(&log, "a");
    stage.reaches([10, 10]).await;
    stage.0.refuse_apply.store(true, Ordering::Release);
    append(&log, &[0, 1]).await;
    fails(&mut running).await;
    stage.reaches([20, 10]).await;
    stage.0.refuse_apply.store(false, Ordering::Release);
    stage.reaches([20, 20]).await;
    running.end().await;
    stage.0.refuse_load.store(true, Ordering::Release);
    let mut running = stage.run(&log, "a");
    fails(&mut running).await;
    append(&log, &[0, 1]).await;
    stage.reaches([30, 20]).await;
    stage.0.refuse_load.store(false, Ordering::Release);
    stage.reaches([30, 30]).await;
    let all = Status::Running { partitions: vec![0, 1] };
    tokio::time::timeout(PATIENCE, running.status.wait_for(|status| *status == all)).await.unwrap().unwrap();
    running.end().await;
}

async fn fails(running: &mut Running) {
    let failed = |status: &Status| {
        matches!(status, Status::Degraded { partitions, failed }
            if *partitions == [0] && failed.len() == 1 && failed[&1].contains("refused by the test"))
    };
    tokio::time::timeout(PATIENCE, running.status.wait_for(failed)).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_partition_fails_on_the_embedded_engine() {
    let directory = tempfile::tempdir().unwrap();
    let config =
        EmbeddedConfig { directory: directory.path().join("data"), partitions: 2, ..EmbeddedConfig::default() };
    let log = EmbeddedLog::open_with_topics(config, &Names::default(), TOPICS).unwrap();
    one_partition_fails(Log::Embedded(log)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_partition_fails_on_kafka() {
    let Some((config, names)) = kafka("one partition fails") else { return };
    one_partition_fails(Log::Kafka(KafkaLog::open(config, names).unwrap())).await;
}

/// The producer of another instance leaves a transaction open in the topic; the reader of the outputs goes on too.
async fn the_next_owner_ends(left_open: &[Topic]) {
    let Some((config, names)) = kafka("a transaction left open") else { return };
    let log = Log::Kafka(KafkaLog::open(config.clone(), names.clone()).unwrap());
    log.create_topics().await.unwrap();
    let stage = Counts::default();
    append(&log, &[0, 1]).await;
    let running = stage.run(&log, "b");
    stage.reaches([10, 10]).await;
    running.end().await;
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &config.brokers).set("transaction.timeout.ms", "900000");
    client.set("transactional.id", names.transactional_id("counts", "b", 0));
    let producer: BaseProducer = client.create().unwrap();
    tokio::task::block_in_place(|| {
        producer.init_transactions(PATIENCE).unwrap();
        producer.begin_transaction().unwrap();
        for topic in left_open {
            let topic = names.topic(topic);
            let record = BaseRecord::to(&topic).partition(0).key("n").payload("left");
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
    });
    let running = stage.run(&log, "a");
    append(&log, &[0, 1]).await;
    stage.reaches([20, 20]).await;
    let read = || {
        let mut reader = log.reader(Topic::HOURLY, &[(0, 0)]).unwrap();
        let (mut batch, mut newest, deadline) = (Batch::default(), None, Instant::now() + PATIENCE);
        while newest.as_deref() != Some(&20_u64.to_be_bytes()[..]) {
            assert!(Instant::now() < deadline, "{newest:?}");
            if reader.poll(&mut batch, Limits::default()).unwrap() == PollOutcome::Records {
                newest = batch.iter().filter_map(|record| record.value).last().map(<[u8]>::to_vec);
            }
        }
    };
    tokio::task::block_in_place(read);
    running.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_owner_ends_a_transaction_in_state_and_outputs() {
    the_next_owner_ends(&[Topic::STATE, Topic::HOURLY]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_owner_ends_a_transaction_in_an_output() {
    the_next_owner_ends(&[Topic::HOURLY]).await;
}

fn kafka(test: &str) -> Option<(KafkaConfig, Names)> {
    let brokers = millrace_testkit::kafka(&format!("log: {test}"))?;
    let mut config = crate::kafka::test_config(brokers);
    (config.partitions, config.transaction_timeout) = (2, Span::from_secs(3));
    Some((config, Names::new(&format!("{}.", millrace_testkit::unique("isolated"))).unwrap()))
}
