//! The producer of appends: every record ends in one of three outcomes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use millrace_contracts::Topic;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::statistics::Statistics;
use rdkafka::{Message, util::Timeout};

use super::config::{KafkaConfig, MAX_RECORD_BYTES};
use super::consumer::invalid_settings;
use super::numbers::Numbers;
use super::unavailable;
use crate::fault;
use crate::metric::APPENDS;
use crate::outcome::Ticket;
use crate::topics::Topics;
use crate::{LogError, NewRecord, Outcome, Receipts, RefusalCause};

/// Timeout of opening: the first response of a broker.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval of probes while no broker is reachable, and the timeout of each.
const PROBE_INTERVAL: Duration = Duration::from_millis(500);
/// After this time without a broker a new producer replaces the old one: a producer that lost its only broker may never
/// reconnect (observed).
const REPLACE_AFTER: Duration = Duration::from_secs(30);

/// Appends records. One producer for all callers.
pub(super) struct Appender(Arc<Shared>);

struct Shared {
    /// Replaced after a fatal error.
    producer: ArcSwap<NumberedProducer>,
    config: ClientConfig,
    topics: Topics,
    closing: AtomicBool,
}

/// One life of a producer, with the numbers of its records.
struct NumberedProducer {
    client: ThreadedProducer<AppendContext>,
    numbers: Numbers,
}

/// Receives delivery reports and broker states, on librdkafka's thread.
#[derive(Default)]
struct AppendContext {
    /// No broker is reachable.
    down: AtomicBool,
    /// Why TLS or SASL with a broker last failed.
    handshake_error: Mutex<String>,
    /// Records and bytes in flight, as last reported.
    waiting: Mutex<(u64, u64)>,
}

impl AppendContext {
    fn report_waiting(&self, now: (u64, u64)) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        APPENDS.waiting_changed(std::mem::replace(&mut *waiting, now), now);
    }
}

impl Drop for AppendContext {
    fn drop(&mut self) {
        self.report_waiting((0, 0));
    }
}

impl ClientContext for AppendContext {
    /// Called once a second.
    fn stats(&self, statistics: Statistics) {
        self.report_waiting((statistics.msg_cnt, statistics.msg_size));
        if statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP") {
            self.broker_up();
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) if !self.down.swap(true, Ordering::Relaxed) => {
                tracing::warn!(reason, "no Kafka broker is reachable: refusing appends");
            }
            Some(RDKafkaErrorCode::SSL | RDKafkaErrorCode::Authentication) => {
                tracing::warn!(reason, "TLS or SASL with a Kafka broker failed");
                reason.clone_into(&mut self.handshake_error.lock().unwrap_or_else(PoisonError::into_inner));
            }
            _ => {}
        }
    }
}

impl AppendContext {
    fn broker_up(&self) {
        if self.down.swap(false, Ordering::Relaxed) {
            tracing::info!("a Kafka broker is reachable again: accepting appends");
        }
    }
}

impl ProducerContext for AppendContext {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        fault::point("kafka::append::reported");
        ticket.resolve(match result {
            Ok(message) => u64::try_from(message.offset()).map_or(Outcome::Unknown, Outcome::Acknowledged),
            // The broker rejected the record; after any other error it may have been written.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                Outcome::Refused(RefusalCause::TooLarge)
            }
            Err(_) => Outcome::Unknown,
        });
    }
}

impl Appender {
    pub(super) fn open(config: &KafkaConfig, topics: &Topics) -> Result<Self, LogError> {
        let client = config.appender();
        let producer = producer(&client, topics, AppendContext::default())?;
        if let Err(error) = producer.client.client().fetch_metadata(None, CONNECT_TIMEOUT) {
            let mut operation = format!("no response from Kafka at {}", config.brokers);
            let handshake_error =
                producer.client.context().handshake_error.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if !handshake_error.is_empty() {
                operation = format!("{operation} ({handshake_error})");
            }
            return Err(unavailable(&operation)(error));
        }
        let (producer, closing) = (ArcSwap::from_pointee(producer), AtomicBool::new(false));
        let shared = Arc::new(Shared { producer, config: client, topics: topics.clone(), closing });
        let maintained = Arc::downgrade(&shared);
        let thread = std::thread::Builder::new().name("kafka-maintain".into()).spawn(move || maintain(&maintained));
        thread.map_err(|error| LogError::unavailable(format!("thread: {error}")).because(error))?;
        Ok(Self(shared))
    }

    pub(super) fn append<'n>(&self, records: &[NewRecord<'_>], full_name: impl Fn(Topic) -> &'n str) -> Receipts {
        let (receipts, tickets) = Receipts::new(records.len());
        let producer = self.0.producer.load();
        for (record, ticket) in records.iter().zip(tickets) {
            if let Err((cause, ticket)) = self.enqueue(&producer, record, full_name(record.topic), ticket) {
                ticket.resolve(Outcome::Refused(cause));
            }
        }
        fault::point("kafka::append::enqueued");
        receipts
    }

    fn enqueue(
        &self,
        producer: &NumberedProducer,
        record: &NewRecord<'_>,
        topic: &str,
        ticket: Ticket,
    ) -> Result<(), (RefusalCause, Ticket)> {
        if self.0.closing.load(Ordering::Relaxed) {
            return Err((RefusalCause::ShuttingDown, ticket));
        }
        if producer.client.context().down.load(Ordering::Relaxed) {
            return Err((RefusalCause::Unavailable, ticket));
        }
        if record.key.len() + record.value.len() > MAX_RECORD_BYTES - 512 {
            return Err((RefusalCause::TooLarge, ticket));
        }
        producer.numbers.enqueue(record.topic, record.partition, |headers| {
            let mut message = BaseRecord::with_opaque_to(topic, Box::new(ticket))
                .partition(record.partition.cast_signed())
                .key(record.key)
                .payload(record.value);
            message.headers = headers;
            producer.client.send(message).map_err(|(error, message)| {
                let cause = match error.rdkafka_error_code() {
                    Some(RDKafkaErrorCode::QueueFull) => RefusalCause::Full,
                    Some(RDKafkaErrorCode::MessageSizeTooLarge) => RefusalCause::TooLarge,
                    _ => RefusalCause::Unavailable,
                };
                (cause, *message.delivery_opaque)
            })
        })
    }

    pub(super) fn health(&self) -> Result<(), String> {
        if self.0.closing.load(Ordering::Relaxed) {
            return Err("shutting down".into());
        }
        let producer = self.0.producer.load();
        if producer.client.context().down.load(Ordering::Relaxed) {
            return Err("no Kafka broker is reachable".into());
        }
        if let Some((_, reason)) = producer.client.client().fatal_error() {
            return Err(format!("the producer failed and is being replaced: {reason}"));
        }
        Ok(())
    }

    /// Refuses new appends and waits for those in flight.
    pub(super) fn close(&self, within: Duration) {
        self.0.closing.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + within;
        let producer = self.0.producer.load_full();
        while producer.client.in_flight_count() > 0 && Instant::now() < deadline {
            let _ = producer.client.flush(Timeout::After(Duration::from_millis(100)));
        }
    }
}

fn producer(config: &ClientConfig, topics: &Topics, context: AppendContext) -> Result<NumberedProducer, LogError> {
    let client = ThreadedProducer::from_config_and_context(config, context).map_err(invalid_settings)?;
    Ok(NumberedProducer { client, numbers: Numbers::new(topics) })
}

/// Detects that a broker is reachable again, and replaces a failed producer. Appends are refused meanwhile, and
/// librdkafka connects only for a request, so this thread makes them.
fn maintain(shared: &Weak<Shared>) {
    let mut down_since = None;
    while let Some(shared) = shared.upgrade() {
        let producer = shared.producer.load_full();
        let context = producer.client.context();
        if context.down.load(Ordering::Relaxed) && producer.client.client().fetch_metadata(None, PROBE_INTERVAL).is_ok()
        {
            context.broker_up();
        }
        if !context.down.load(Ordering::Relaxed) {
            down_since = None;
        } else if down_since.get_or_insert_with(Instant::now).elapsed() > REPLACE_AFTER {
            down_since = None;
            replace(&shared, &producer);
        }
        if let Some((code, reason)) = producer.client.client().fatal_error() {
            tracing::error!(?code, reason, "the producer failed: refusing appends until it is replaced");
            replace(&shared, &producer);
        }
        drop(producer);
        drop(shared);
        std::thread::park_timeout(PROBE_INTERVAL);
    }
}

/// Replaces the producer. The records that the old one has in flight end as unknown.
fn replace(shared: &Shared, old: &Arc<NumberedProducer>) {
    // If no broker is reachable, the new producer has none either, until one responds.
    let down = AtomicBool::new(old.client.context().down.load(Ordering::Relaxed));
    let context = AppendContext { down, handshake_error: Mutex::default(), waiting: Mutex::default() };
    match producer(&shared.config, &shared.topics, context) {
        Ok(new) => {
            let swapped = shared.producer.swap(Arc::new(new));
            drop(swapped);
            tracing::info!("a new producer replaces the failed one");
            // Dropping it takes a moment. This thread waits for that, so that no caller of `append` has to.
            while Arc::strong_count(old) > 1 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Err(error) => tracing::warn!(%error, "cannot create a new producer; retrying"),
    }
}
