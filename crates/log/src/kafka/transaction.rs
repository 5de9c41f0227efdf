//! A transaction as a value: open, it borrows the producer for itself; committing or aborting consumes it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fail::fail_point;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{Consumer, ConsumerGroupMetadata};
use rdkafka::error::{KafkaError, RDKafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::util::Timeout;

use super::bounded::bounded;
use super::member::Member;
use super::{KafkaConfig, unavailable};
use crate::LogError;
use crate::metric::Abort;

/// How long a coordinator may take to come up, and the most that any step of a transaction may take before the producer is
/// given up.
const ANSWER: Duration = Duration::from_secs(30);

/// Between two looks for reports of deliveries.
const GRAIN: Duration = Duration::from_millis(1);

/// How much longer than it should the sending of offsets may take.
const LATE: Duration = Duration::from_secs(1);

/// The one transactional producer of a worker.
pub(super) struct Transactional {
    producer: Arc<BaseProducer<Deliveries>>,
    /// What a step of a transaction may take: after its time-out the brokers abort it in any case.
    patience: Duration,
}

/// Keeps the first delivery that failed.
#[derive(Default)]
struct Deliveries {
    failed: Mutex<Option<KafkaError>>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.lock().expect("no holder of this lock panics").get_or_insert_with(|| error.clone());
        }
    }
}

/// Why a transaction did not commit.
#[derive(Debug)]
pub(super) enum Failed {
    /// It was aborted: nothing of it is visible, and the producer can go on.
    Aborted(Abort, String),
    /// The producer cannot go on. librdkafka has no KIP-890: whether the transaction committed is known only to the
    /// log, so a new producer (new epoch) and a restore decide.
    Lost(LogError),
}

impl Transactional {
    /// Makes the producer and fences every earlier one of the same id, whose open transaction is aborted.
    pub(super) fn open(config: &KafkaConfig, id: &str) -> Result<Self, LogError> {
        let producer = BaseProducer::from_config_and_context(&config.transactional(id), Deliveries::default())
            .map_err(|error| LogError::Refused(format!("kafka settings: {error}")))?;
        producer.init_transactions(ANSWER).map_err(unavailable("init transactions"))?;
        let patience = config.transaction_timeout.0.min(ANSWER);
        Ok(Self { producer: Arc::new(producer), patience })
    }

    pub(super) fn begin(&mut self) -> Result<Transaction<'_>, Failed> {
        self.producer.context().failed.lock().expect("no holder of this lock panics").take();
        self.producer.begin_transaction().map_err(|error| Failed::Lost(unavailable("begin transaction")(error)))?;
        Ok(Transaction { producer: &self.producer, patience: self.patience })
    }
}

/// An open transaction. Its order is fixed: produce, drain, offsets, commit. Nothing is produced after the offsets: a
/// record still queued then can land behind a new owner's restore.
pub(super) struct Transaction<'p> {
    producer: &'p Arc<BaseProducer<Deliveries>>,
    patience: Duration,
}

impl Transaction<'_> {
    /// Enqueues a record; without a value it is a tombstone.
    pub(super) fn produce(
        &self,
        topic: &str,
        partition: u32,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), KafkaError> {
        let deadline = Instant::now() + self.patience;
        let mut record = BaseRecord::to(topic).partition(partition.cast_signed()).key(key);
        record.payload = value;
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((error, back)) => {
                    let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                    if !full || Instant::now() > deadline {
                        return Err(error);
                    }
                    record = back;
                    self.take_reports();
                }
            }
        }
    }

    /// Waits until every record is delivered and nothing is in flight. Besides the order this saves time: librdkafka's own
    /// flush inside the commit comes in grains of 100 ms.
    pub(super) fn drain(&self) -> Result<(), KafkaError> {
        if !self.reported() {
            return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
        }
        match self.producer.context().failed.lock().expect("no holder of this lock panics").take() {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// Makes the input offsets part of the transaction, fenced by the member's current generation (KIP-447).
    pub(super) fn offsets(&self, member: &Member, offsets: &TopicPartitionList) -> Result<(), KafkaError> {
        let metadata: Option<ConsumerGroupMetadata> = member.consumer().group_metadata();
        // Taken afresh every time: it holds the generation.
        let metadata = metadata.ok_or(KafkaError::Canceled)?;
        // librdkafka does not keep to its time-out here: with the group's coordinator dead it was seen to wait for minutes, until
        // some broker's state changed. So it waits elsewhere, and what comes too late is left to its fate with the producer.
        let (producer, offsets, patience) = (self.producer.clone(), offsets.clone(), self.patience);
        let send = move || retrying(patience, || producer.send_offsets_to_transaction(&offsets, &metadata, patience));
        let late = KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut);
        bounded("kafka-offsets", patience + LATE, send).unwrap_or(Err(late))
    }

    pub(super) fn commit(self) -> Result<(), Failed> {
        fail_point!("kafka::stage::committing");
        // No time-out of ours: librdkafka gives up after the transaction's.
        match retrying(ANSWER, || self.producer.commit_transaction(Timeout::Never)) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failed(Abort::Commit, &error)),
        }
    }

    /// Ends the transaction after a failed operation, by what the error asks for.
    pub(super) fn failed(self, what: Abort, error: &KafkaError) -> Failed {
        let doing = what.as_str();
        if requires_new_producer(error) {
            return Failed::Lost(LogError::Unavailable(format!("{doing}: {error}")));
        }
        match self.abort() {
            Ok(()) => Failed::Aborted(what, format!("{doing}: {error}")),
            Err(abort) => Failed::Lost(LogError::Unavailable(format!("{doing}: {error}; abort: {abort}"))),
        }
    }

    /// Ends the transaction without a trace.
    pub(super) fn abort(self) -> Result<(), KafkaError> {
        // Records of ours may still be queued; an aborted transaction waits for them. Not for ever: while librdkafka takes a
        // new epoch of itself, an abort was seen to hang with every broker well.
        retrying(self.patience, || self.producer.abort_transaction(self.patience))?;
        self.forget();
        Ok(())
    }

    /// Takes the reports of what was aborted, so that they are not the next transaction's.
    fn forget(&self) {
        self.reported();
        self.producer.poll(Duration::ZERO);
    }

    /// Takes reports until every record has its own; false when that takes too long.
    fn reported(&self) -> bool {
        let deadline = Instant::now() + self.patience;
        while self.producer.in_flight_count() > 0 {
            if Instant::now() > deadline {
                return false;
            }
            self.take_reports();
        }
        true
    }

    /// Takes some reports, or rests for a moment when there is none. Not within `poll`: that waits for all of its time though
    /// a report came, and for the last millisecond of it with a busy core.
    fn take_reports(&self) {
        let before = self.producer.in_flight_count();
        self.producer.poll(Duration::ZERO);
        if self.producer.in_flight_count() == before {
            std::thread::sleep(GRAIN);
        }
    }
}

/// Anything that is neither plainly abortable nor a record's own failure ends the producer.
fn requires_new_producer(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => !error.txn_requires_abort(),
        // Given up without an answer: sequence numbers are skipped, and librdkafka would need a new epoch to go on. (A purge
        // is the consequence of another error, and of no weight of its own.)
        KafkaError::MessageProduction(
            RDKafkaErrorCode::Fatal | RDKafkaErrorCode::Fenced | RDKafkaErrorCode::MessageTimedOut,
        )
        | KafkaError::Flush(_) => true,
        KafkaError::MessageProduction(_) | KafkaError::Canceled => false,
        _ => true,
    }
}

/// Repeats a request while librdkafka says that repeating it is safe.
fn retrying(within: Duration, mut request: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let deadline = Instant::now() + within;
    let retriable = |error: &RDKafkaError| error.is_retriable() && !error.is_fatal() && !error.txn_requires_abort();
    loop {
        match request() {
            Err(KafkaError::Transaction(error)) if retriable(&error) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
}
