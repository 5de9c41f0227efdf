//! Error codes of brokers, by librdkafka's mock cluster: each leads to its class. Retriable: no effect. Abortable:
//! nothing of the transaction is visible and the producer remains usable. Fatal: a new producer is needed. Unclassified
//! is fatal.

use std::time::{Duration, Instant};

use millrace_base::Span;
use millrace_contracts::{Names, ProjectionPosition, ProjectionWrite, StoreError, Topic, WriteOutcome};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::RDKafkaApiKey as Key;
use rdkafka::types::RDKafkaRespErr::{self as Code, *};

use super::config::tests::config;
use super::member::{Member, PollEvent};
use super::transaction::{Purpose, TransactionError, TransactionalProducer};
use super::{KafkaConfig, KafkaLog};
use crate::metric::Abort;
use crate::{
    AppendAcks, Batch, Limits, LogError, NewRecord, Outcome, PollOutcome, RefusalCause, RunOptions, Sink, Status,
};

const PATIENCE: Duration = Duration::from_secs(30);

struct Mock {
    cluster: MockCluster<'static, DefaultProducerContext>,
    config: KafkaConfig,
    names: Names,
}

fn mock() -> Mock {
    let cluster = MockCluster::new(3).unwrap();
    let names = Names::new("mocked.").unwrap();
    for topic in [Topic::EVENTS, Topic::STATE] {
        cluster.create_topic(&names.topic(&topic), 1, 3).unwrap();
    }
    let mut config = config(&cluster.bootstrap_servers());
    (config.partitions, config.message_timeout) = (1, Span::from_secs(3));
    Mock { cluster, config, names }
}

impl Mock {
    fn open(&self) -> KafkaLog {
        KafkaLog::open(self.config.clone(), self.names.clone()).unwrap()
    }

    /// The only member of this group, to which every partition is assigned.
    fn member(&self, group: &str) -> Member {
        let config = self.config.member(&self.names.group(group), "one", 0);
        let member = Member::join(&config, &self.names.topic(&Topic::EVENTS)).unwrap();
        until("the member has an assignment", || {
            member.poll(Duration::from_millis(10), |_| {}).unwrap();
            member.changed()
        });
        member
    }
}

async fn append(log: &KafkaLog) -> Outcome {
    let value = [b'v'; 100];
    log.append(&[NewRecord { topic: Topic::EVENTS, partition: 0, key: b"k", value: &value }]).await[0]
}

fn until(what: &str, mut answer: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !answer() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The expected outcome of an append.
#[derive(Debug, PartialEq)]
enum Expected {
    Acknowledged,
    TooLarge,
    Unknown,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_broker_error_decides_the_outcome_of_an_append() {
    use Expected::{Acknowledged, TooLarge, Unknown};
    let table = [
        (RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, Acknowledged),
        (RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE, Acknowledged),
        (RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, Acknowledged),
        (RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND, Acknowledged),
        (RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, Acknowledged),
        (RD_KAFKA_RESP_ERR__TRANSPORT, Acknowledged),
        (RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART, Acknowledged),
        (RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, TooLarge),
        // An earlier try of the same record may have succeeded.
        (RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, Unknown),
        (RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, Unknown),
        (RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, Unknown),
        (RD_KAFKA_RESP_ERR_INVALID_RECORD, Unknown),
        (RD_KAFKA_RESP_ERR_UNKNOWN, Unknown),
    ];
    for acks in [AppendAcks::All, AppendAcks::Leader] {
        let mut mock = mock();
        mock.config.append_acks = acks;
        for (code, expected) in &table {
            let log = mock.open();
            assert!(matches!(append(&log).await, Outcome::Acknowledged(_)));
            mock.cluster.request_errors(Key::Produce, &[*code]);
            let ended = match append(&log).await {
                Outcome::Acknowledged(_) => Acknowledged,
                Outcome::Refused(RefusalCause::TooLarge) => TooLarge,
                Outcome::Refused(other) => panic!("{acks:?} {code:?}: {other:?}"),
                Outcome::Unknown => Unknown,
            };
            mock.cluster.clear_request_errors(Key::Produce);
            // Without idempotence there are no sequence numbers to violate: the producer retries whatever it may.
            assert!(
                ended == *expected || acks == AppendAcks::Leader && ended != TooLarge,
                "{acks:?} {code:?}: {ended:?}"
            );
            // Then appends succeed again, with a new producer if needed.
            let deadline = Instant::now() + PATIENCE;
            loop {
                match append(&log).await {
                    Outcome::Acknowledged(_) => break,
                    Outcome::Refused(RefusalCause::Unavailable) | Outcome::Unknown if Instant::now() < deadline => {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    other => panic!("{acks:?} {code:?}: then {other:?}"),
                }
            }
            assert_eq!(log.health(), Ok(()), "{code:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_broker_an_append_is_unknown_and_later_ones_are_refused() {
    let mock = mock();
    let log = mock.open();
    assert!(matches!(append(&log).await, Outcome::Acknowledged(_)));
    let errors = vec![RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS; 10_000];
    mock.cluster.request_errors(Key::Produce, &errors);
    assert_eq!(append(&log).await, Outcome::Unknown, "not acknowledged below the in-sync minimum");
    mock.cluster.clear_request_errors(Key::Produce);
    mock.cluster.broker_down(-1).unwrap();
    until("appends are refused", || log.health().is_err());
    assert_eq!(append(&log).await, Outcome::Refused(RefusalCause::Unavailable));
    mock.cluster.broker_up(-1).unwrap();
    until("a broker is reachable again", || log.health().is_ok());
    let deadline = Instant::now() + PATIENCE;
    while !matches!(append(&log).await, Outcome::Acknowledged(_)) {
        assert!(Instant::now() < deadline, "appends succeed again");
    }
}

/// The class of an error in a transaction.
#[derive(Debug, PartialEq, Clone, Copy)]
enum Class {
    Retriable,
    Abortable,
    Fatal,
}

fn transact(producer: &mut TransactionalProducer, member: &Member, mock: &Mock) -> Result<(), TransactionError> {
    let transaction = producer.begin(Purpose::Step)?;
    let prepared = transaction
        .produce(&mock.names.topic(&Topic::STATE), 0, b"k", Some(b"v"))
        .and_then(|()| transaction.drain())
        .map_err(|error| (Abort::Records, error))
        .and_then(|()| {
            transaction.offsets(member.group_metadata(), &member.offsets([(0, 1)])).map_err(|e| (Abort::Offsets, e))
        });
    match prepared {
        Ok(()) => transaction.commit(),
        Err((operation, error)) => Err(transaction.failed(operation, error)),
    }
}

#[test]
fn the_broker_error_decides_the_class_of_a_failed_transaction() {
    use Class::{Abortable, Fatal, Retriable};
    let table: &[(Key, Code, Class)] = &[
        (Key::Produce, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, Retriable),
        (Key::Produce, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS, Retriable),
        (Key::Produce, RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND, Retriable),
        (Key::Produce, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, Retriable),
        (Key::Produce, RD_KAFKA_RESP_ERR__TRANSPORT, Retriable),
        (Key::Produce, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE, Abortable),
        (Key::Produce, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, Abortable),
        (Key::Produce, RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER, Fatal),
        (Key::Produce, RD_KAFKA_RESP_ERR_UNKNOWN_PRODUCER_ID, Abortable),
        (Key::Produce, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, Fatal),
        (Key::Produce, RD_KAFKA_RESP_ERR_INVALID_RECORD, Abortable),
        (Key::AddPartitionsToTxn, RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE, Retriable),
        (Key::AddPartitionsToTxn, RD_KAFKA_RESP_ERR_NOT_COORDINATOR, Retriable),
        (Key::AddPartitionsToTxn, RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS, Retriable),
        (Key::AddPartitionsToTxn, RD_KAFKA_RESP_ERR_CONCURRENT_TRANSACTIONS, Retriable),
        (Key::AddPartitionsToTxn, RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED, Abortable),
        (Key::AddPartitionsToTxn, RD_KAFKA_RESP_ERR_PRODUCER_FENCED, Fatal),
        (Key::AddPartitionsToTxn, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, Fatal),
        (Key::AddPartitionsToTxn, RD_KAFKA_RESP_ERR_INVALID_TXN_STATE, Fatal),
        (Key::AddOffsetsToTxn, RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE, Retriable),
        (Key::AddOffsetsToTxn, RD_KAFKA_RESP_ERR_NOT_COORDINATOR, Retriable),
        // A real broker then fences the abort too, and that ends the producer.
        (Key::AddOffsetsToTxn, RD_KAFKA_RESP_ERR_PRODUCER_FENCED, Abortable),
        (Key::AddOffsetsToTxn, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, Fatal),
        (Key::AddOffsetsToTxn, RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED, Abortable),
        (Key::TxnOffsetCommit, RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE, Retriable),
        (Key::TxnOffsetCommit, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, Retriable),
        (Key::TxnOffsetCommit, RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION, Abortable),
        (Key::TxnOffsetCommit, RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID, Abortable),
        (Key::TxnOffsetCommit, RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID, Abortable),
        (Key::TxnOffsetCommit, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, Fatal),
        (Key::EndTxn, RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE, Retriable),
        (Key::EndTxn, RD_KAFKA_RESP_ERR_NOT_COORDINATOR, Retriable),
        (Key::EndTxn, RD_KAFKA_RESP_ERR__TRANSPORT, Retriable),
        (Key::EndTxn, RD_KAFKA_RESP_ERR_PRODUCER_FENCED, Fatal),
        (Key::EndTxn, RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH, Fatal),
        (Key::EndTxn, RD_KAFKA_RESP_ERR_INVALID_TXN_STATE, Fatal),
        (Key::EndTxn, RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED, Fatal),
        // The coordinator accepts an abort only before it begins the commit.
        (Key::EndTxn, RD_KAFKA_RESP_ERR_UNKNOWN, Abortable),
    ];
    let mock = mock();
    let member = mock.member("group");
    let mut wrong = Vec::new();
    for (number, &(key, code, expected)) in table.iter().enumerate() {
        let id = format!("mocked-{number}");
        let mut producer = TransactionalProducer::open(&mock.config, &id).unwrap();
        transact(&mut producer, &member, &mock).unwrap();
        mock.cluster.request_errors(key, &[code]);
        let ended = transact(&mut producer, &member, &mock);
        let class = match &ended {
            Ok(()) => Retriable,
            Err(TransactionError::Aborted(..)) => Abortable,
            Err(TransactionError::ProducerLost(LogError::Unavailable(_))) => Fatal,
            Err(TransactionError::ProducerLost(error)) => panic!("{key:?} {code:?}: {error}"),
        };
        mock.cluster.clear_request_errors(key);
        if class == Fatal {
            producer = TransactionalProducer::open(&mock.config, &id).unwrap();
        }
        // Like a stage, retries an aborted one. librdkafka may fail the next one too, while it requests a new epoch.
        let deadline = Instant::now() + PATIENCE;
        let mut then = transact(&mut producer, &member, &mock);
        while matches!(then, Err(TransactionError::Aborted(..))) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
            then = transact(&mut producer, &member, &mock);
        }
        if class != expected || then.is_err() {
            wrong.push(format!("{key:?} {code:?}: {ended:?}, not {expected:?}; then {then:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_refuses_a_deleted_position_and_survives_other_errors() {
    let mock = mock();
    let log = mock.open();
    for _ in 0..3 {
        assert!(matches!(append(&log).await, Outcome::Acknowledged(_)));
    }
    let refused = |error: Option<LogError>, what: &str| {
        assert!(matches!(&error, Some(LogError::Refused(why)) if why.detail.contains("position")), "{what}: {error:?}");
    };
    for code in
        [RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION, RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT, RD_KAFKA_RESP_ERR__TRANSPORT]
    {
        mock.cluster.request_errors(Key::Fetch, &[code]);
        let mut reader = log.reader(Topic::EVENTS, &[(0, 0)]).unwrap();
        let (mut batch, mut seen) = (Batch::default(), 0);
        until("all three are read", || {
            if reader.poll(&mut batch, Limits::default()).unwrap() == PollOutcome::Records {
                seen += batch.len();
            }
            seen == 3
        });
    }
    mock.cluster.request_errors(Key::Fetch, &[RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE]);
    let mut reader = log.reader(Topic::EVENTS, &[(0, 1)]).unwrap();
    let mut error = None;
    until("polling fails", || {
        error = reader.poll(&mut Batch::default(), Limits::default()).err();
        error.is_some()
    });
    refused(error, "reader");
    mock.cluster.clear_request_errors(Key::Fetch);
    let member = mock.member("gone");
    let poll = |seen: &mut u64| {
        member.poll(Duration::from_millis(50), |event| *seen += u64::from(matches!(event, PollEvent::Record(..))))
    };
    let mut seen = 0;
    mock.cluster.request_errors(Key::Fetch, &[RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE]);
    member.assign(&[(0, 1)]).unwrap();
    let mut error = None;
    until("polling fails", || {
        error = poll(&mut seen).err();
        error.is_some()
    });
    refused(error, "member");
    assert_eq!(seen, 0, "it must not choose another position");
}

#[test]
fn a_member_leaves_in_bounded_time_without_a_responding_broker() {
    let mock = mock();
    let member = mock.member("leaving");
    member.assign(&[(0, 0)]).unwrap();
    // Brokers that accept every request and respond to none.
    for broker in 1..=3 {
        mock.cluster.broker_round_trip_time(broker, Duration::from_mins(10)).unwrap();
    }
    member.consumer().commit(&member.offsets([(0, 0)]), CommitMode::Async).unwrap();
    let (gone, left) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(member);
        let _ = gone.send(());
    });
    assert_eq!(left.recv_timeout(PATIENCE), Ok(()));
}

/// Has no position of its own, and takes every write.
struct Nowhere;

impl Sink for Nowhere {
    fn topic(&self) -> Topic {
        Topic::EVENTS
    }

    async fn position(&mut self, _: u32) -> Result<Option<ProjectionPosition>, StoreError> {
        Ok(None)
    }

    async fn write(&mut self, writes: &[ProjectionWrite<'_, Batch>]) -> Result<Vec<WriteOutcome>, StoreError> {
        Ok(vec![WriteOutcome::Applied; writes.len()])
    }
}

/// Tools would show it as lag for as long as nothing new arrives.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_commit_of_a_sinks_offsets_is_repeated() {
    let mock = mock();
    let log = mock.open();
    let (status, _seen) = tokio::sync::watch::channel(Status::Starting);
    let (role, instance) = ("nowhere".into(), "a".into());
    let options = RunOptions { role, instance, workers: 1, step: Limits::default(), status };
    let stop = tokio_util::sync::CancellationToken::new();
    let running = {
        let (log, stop) = (log.clone(), stop.clone());
        tokio::spawn(async move { log.run_sink(|| Nowhere, options, stop).await })
    };
    let committed = |next_offset: u64| {
        until("the offset is committed", || {
            let position = log.group_position("nowhere", Topic::EVENTS, 0);
            position.is_ok_and(|position| position.is_some_and(|position| position.next_offset == next_offset))
        });
    };
    for next_offset in 1..3 {
        assert!(matches!(append(&log).await, Outcome::Acknowledged(_)));
        tokio::task::block_in_place(|| committed(next_offset));
        mock.cluster.request_errors(Key::OffsetCommit, &[RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED]);
    }
    stop.cancel();
    running.await.unwrap().unwrap();
}
