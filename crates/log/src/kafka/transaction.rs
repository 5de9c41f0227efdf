//! A transaction as a value: while open, it borrows the producer; commit and abort consume it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use millrace_base::Backoff;
use rdkafka::TopicPartitionList;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::util::Timeout;

use super::bounded::bounded;
use super::consumer::invalid_settings;
use super::{KafkaConfig, unavailable};
use crate::fault;
use crate::metric::Abort;
use crate::{Failure, LogError};

/// Timeout of the coordinator's first response, and the maximum duration of any operation of a transaction; after that
/// the producer is discarded.
const MAX_PATIENCE: Duration = Duration::from_secs(30);

/// Between two polls for delivery reports.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// How long sending offsets may exceed its timeout.
const OFFSETS_GRACE: Duration = Duration::from_secs(1);

/// The pauses between two tries of a request.
const RETRY: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(200));

/// The one transactional producer of a worker.
pub(super) struct TransactionalProducer {
    producer: Arc<BaseProducer<DeliveryErrors>>,
    /// The maximum duration of an operation. After the transaction's timeout the brokers abort it in any case.
    patience: Duration,
}

/// Records the first failed delivery.
#[derive(Default)]
struct DeliveryErrors {
    first: Mutex<Option<KafkaError>>,
}

impl ClientContext for DeliveryErrors {}

impl ProducerContext for DeliveryErrors {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.first.lock().expect("no holder of this lock panics").get_or_insert_with(|| error.clone());
        }
    }
}

/// The reason why a transaction did not commit.
#[derive(Debug)]
pub(super) enum TransactionError {
    /// It was aborted: nothing of it is visible, and the producer is usable.
    Aborted(Abort, Failure),
    /// The producer failed. librdkafka has no KIP-890: only the log shows whether the transaction committed, so a new
    /// producer (new epoch) and a restore decide.
    ProducerLost(LogError),
}

impl TransactionalProducer {
    /// Makes the producer and fences every earlier one of the same id: the brokers abort its open transaction.
    pub(super) fn open(config: &KafkaConfig, id: &str) -> Result<Self, LogError> {
        let producer = BaseProducer::from_config_and_context(&config.transactional(id), DeliveryErrors::default())
            .map_err(invalid_settings)?;
        producer.init_transactions(MAX_PATIENCE).map_err(unavailable("init transactions"))?;
        let patience = config.transaction_timeout.0.min(MAX_PATIENCE);
        Ok(Self { producer: Arc::new(producer), patience })
    }

    pub(super) fn begin(&mut self, purpose: Purpose) -> Result<Transaction<'_>, TransactionError> {
        self.producer.context().first.lock().expect("no holder of this lock panics").take();
        self.producer
            .begin_transaction()
            .map_err(|error| TransactionError::ProducerLost(unavailable("begin transaction")(error)))?;
        Ok(Transaction { purpose, producer: &self.producer, patience: self.patience })
    }
}

/// What a transaction is for: the fail points inside a step must not fire during a restore.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Step,
    Restore,
}

impl Purpose {
    fn point(self, name: &str) {
        if self == Self::Step {
            fault::point(name);
        }
    }
}

/// An open transaction. Its order is fixed: produce, drain, offsets, commit. Nothing is produced after the offsets: a
/// record still queued then can land behind a new owner's restore.
pub(super) struct Transaction<'p> {
    purpose: Purpose,
    producer: &'p Arc<BaseProducer<DeliveryErrors>>,
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
                    self.poll_reports();
                }
            }
        }
    }

    /// Waits until every record is delivered and nothing is in flight. Apart from the order this saves time:
    /// librdkafka's own flush inside the commit polls every 100 ms.
    pub(super) fn drain(&self) -> Result<(), KafkaError> {
        self.purpose.point("kafka::stage::produced");
        if !self.wait_for_reports() {
            return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
        }
        match self.producer.context().first.lock().expect("no holder of this lock panics").take() {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// Makes the input offsets part of the transaction, fenced by the member's generation (KIP-447).
    pub(super) fn offsets(
        &self,
        metadata: Option<Arc<ConsumerGroupMetadata>>,
        offsets: &TopicPartitionList,
    ) -> Result<(), KafkaError> {
        self.purpose.point("kafka::stage::drained");
        let metadata = metadata.ok_or(KafkaError::Canceled)?;
        // librdkafka does not honor its timeout here: with the group's coordinator dead it waits for minutes, until
        // some broker's state changes (observed). So it waits on another thread, and a late result is discarded with
        // the producer.
        let (producer, offsets, patience) = (self.producer.clone(), offsets.clone(), self.patience);
        let send = move || retrying(patience, || producer.send_offsets_to_transaction(&offsets, &metadata, patience));
        let timed_out = KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut);
        bounded("kafka-offsets", patience + OFFSETS_GRACE, send).unwrap_or(Err(timed_out))
    }

    pub(super) fn commit(self) -> Result<(), TransactionError> {
        let purpose = self.purpose;
        purpose.point("kafka::stage::offsets_sent");
        fault::point("kafka::stage::committing");
        // Without a timeout of its own: librdkafka fails after the transaction's.
        let committed = match retrying(MAX_PATIENCE, || self.producer.commit_transaction(Timeout::Never)) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failed(Abort::Commit, error)),
        };
        purpose.point("kafka::stage::committed");
        committed
    }

    /// Ends the transaction after a failed operation, as the error requires.
    pub(super) fn failed(self, operation: Abort, error: KafkaError) -> TransactionError {
        let mut detail = format!("{}: {error}", operation.as_str());
        if !requires_new_producer(&error) {
            match self.abort() {
                Ok(()) => return TransactionError::Aborted(operation, Failure::new(detail).because(error)),
                Err(abort) => detail = format!("{detail}; abort: {abort}"),
            }
        }
        TransactionError::ProducerLost(LogError::unavailable(detail).because(error))
    }

    /// Aborts the transaction, and not because it failed.
    pub(super) fn cancel(self) -> Result<(), TransactionError> {
        self.abort().map_err(|error| TransactionError::ProducerLost(unavailable("abort")(error)))
    }

    /// Aborts the transaction.
    fn abort(self) -> Result<(), KafkaError> {
        // An abort waits for queued records, but not for ever: while librdkafka requests a new epoch for itself, an
        // abort may hang although every broker is healthy (observed).
        retrying(self.patience, || self.producer.abort_transaction(self.patience))?;
        self.discard_reports();
        Ok(())
    }

    /// Consumes the reports of aborted records, so that they do not count for the next transaction.
    fn discard_reports(&self) {
        self.wait_for_reports();
        self.producer.poll(Duration::ZERO);
    }

    /// Polls until every record has its report; false if that takes too long.
    fn wait_for_reports(&self) -> bool {
        let deadline = Instant::now() + self.patience;
        while self.producer.in_flight_count() > 0 {
            if Instant::now() > deadline {
                return false;
            }
            self.poll_reports();
        }
        true
    }

    /// Polls for reports, and sleeps for a moment if there is none. Not by a timeout of `poll`: that waits for all of
    /// it even if a report arrives, and spins for its last millisecond.
    fn poll_reports(&self) {
        let before = self.producer.in_flight_count();
        self.producer.poll(Duration::ZERO);
        if self.producer.in_flight_count() == before {
            std::thread::sleep(POLL_INTERVAL);
        }
    }
}

/// Whether an error ends the producer: any that is neither abortable nor the failure of one record.
fn requires_new_producer(error: &KafkaError) -> bool {
    match error {
        KafkaError::Transaction(error) => !error.txn_requires_abort(),
        // A record timed out without a report: sequence numbers are skipped, and librdkafka would need a new epoch. (A
        // purge is only the consequence of another error.)
        KafkaError::MessageProduction(
            RDKafkaErrorCode::Fatal | RDKafkaErrorCode::Fenced | RDKafkaErrorCode::MessageTimedOut,
        )
        | KafkaError::Flush(_) => true,
        KafkaError::MessageProduction(_) | KafkaError::Canceled => false,
        _ => true,
    }
}

/// Retries a request while librdkafka reports that this is safe.
fn retrying(within: Duration, mut request: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let deadline = Instant::now() + within;
    let mut backoff = Backoff::new(RETRY.0, RETRY.1);
    let retriable = |error: &RDKafkaError| error.is_retriable() && !error.is_fatal() && !error.txn_requires_abort();
    loop {
        match request() {
            Err(KafkaError::Transaction(error)) if retriable(&error) && Instant::now() < deadline => {
                std::thread::sleep(backoff.next_pause());
            }
            result => return result,
        }
    }
}
