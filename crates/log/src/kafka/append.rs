//! Intake's producer: every record ends in one of three outcomes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use millrace_contracts::Topic;
use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{Message, util::Timeout};

use super::config::{KafkaConfig, MAX_RECORD_BYTES};
use super::unavailable;
use crate::outcome::Ticket;
use crate::{LogError, NewRecord, Outcome, Receipts, Refusal};

/// How long opening waits for the first answer of a broker.
const CONNECT: Duration = Duration::from_secs(10);
/// How often brokers that are gone are asked for, and how long each time.
const ASK_EVERY: Duration = Duration::from_millis(500);

pub(super) struct Appender(Arc<Shared>);

struct Shared {
    producer: ThreadedProducer<Reports>,
    closing: AtomicBool,
}

/// Hears of deliveries and of brokers, on librdkafka's thread. `down` is set when no broker is left.
struct Reports {
    down: AtomicBool,
}

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown)
            && !self.down.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(reason, "no Kafka broker can be reached: appends are refused");
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        ticket.resolve(match result {
            Ok(message) => u64::try_from(message.offset()).map_or(Outcome::Unknown, Outcome::Acknowledged),
            // The broker looked at it and said no; every other error leaves open whether it was written.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                Outcome::Refused(Refusal::TooLarge)
            }
            Err(_) => Outcome::Unknown,
        });
    }
}

impl Appender {
    pub(super) fn open(config: &KafkaConfig) -> Result<Self, LogError> {
        let reports = Reports { down: AtomicBool::new(false) };
        let producer = ThreadedProducer::from_config_and_context(&config.appender(), reports)
            .map_err(|error| LogError::Refused(format!("kafka settings: {error}")))?;
        let doing = format!("no answer from Kafka at {}", config.brokers);
        producer.client().fetch_metadata(None, CONNECT).map_err(unavailable(&doing))?;
        let shared = Arc::new(Shared { producer, closing: AtomicBool::new(false) });
        let asked = Arc::downgrade(&shared);
        let thread = std::thread::Builder::new().name("kafka-ask".into()).spawn(move || ask_for_brokers(&asked));
        thread.map_err(|error| LogError::Unavailable(format!("thread: {error}")))?;
        Ok(Self(shared))
    }

    pub(super) fn append<'n>(&self, records: &[NewRecord<'_>], full_name: impl Fn(Topic) -> &'n str) -> Receipts {
        let (receipts, tickets) = Receipts::new(records.len());
        for (record, ticket) in records.iter().zip(tickets) {
            if let Err((why, ticket)) = self.enqueue(record, full_name(record.topic), ticket) {
                ticket.resolve(Outcome::Refused(why));
            }
        }
        receipts
    }

    fn enqueue(&self, record: &NewRecord<'_>, topic: &str, ticket: Ticket) -> Result<(), (Refusal, Ticket)> {
        if self.0.closing.load(Ordering::Relaxed) {
            return Err((Refusal::ShuttingDown, ticket));
        }
        if self.0.producer.context().down.load(Ordering::Relaxed) {
            return Err((Refusal::Unavailable, ticket));
        }
        if record.key.len() + record.value.len() > MAX_RECORD_BYTES - 512 {
            return Err((Refusal::TooLarge, ticket));
        }
        let message = BaseRecord::with_opaque_to(topic, Box::new(ticket))
            .partition(record.partition.cast_signed())
            .key(record.key)
            .payload(record.value);
        self.0.producer.send(message).map_err(|(error, message)| {
            let why = match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => Refusal::Full,
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => Refusal::TooLarge,
                _ => Refusal::Unavailable,
            };
            (why, *message.delivery_opaque)
        })
    }

    pub(super) fn health(&self) -> Result<(), String> {
        if self.0.closing.load(Ordering::Relaxed) {
            return Err("closing".into());
        }
        if self.0.producer.context().down.load(Ordering::Relaxed) {
            return Err("no Kafka broker can be reached".into());
        }
        Ok(())
    }

    /// Refuses what comes now, waits for what is under way.
    pub(super) fn close(&self, within: Duration) {
        self.0.closing.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + within;
        while self.0.producer.in_flight_count() > 0 && Instant::now() < deadline {
            let _ = self.0.producer.flush(Timeout::After(Duration::from_millis(100)));
        }
    }
}

/// Notices that a broker is back. Nobody else would: appends are refused while none is there, and librdkafka connects only
/// when something is asked of it.
fn ask_for_brokers(shared: &Weak<Shared>) {
    while let Some(shared) = shared.upgrade() {
        let down = &shared.producer.context().down;
        if down.load(Ordering::Relaxed) && shared.producer.client().fetch_metadata(None, ASK_EVERY).is_ok() {
            down.store(false, Ordering::Relaxed);
            tracing::info!("a Kafka broker is back: appends are taken again");
        }
        drop(shared);
        std::thread::park_timeout(ASK_EVERY);
    }
}
