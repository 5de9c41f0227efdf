//! Intake's producer: every record ends in one of three outcomes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use fail::fail_point;
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
use super::unavailable;
use crate::metric::APPENDED;
use crate::outcome::Ticket;
use crate::{LogError, NewRecord, Outcome, Receipts, RefusalCause};

/// How long opening waits for the first answer of a broker.
const CONNECT: Duration = Duration::from_secs(10);
/// How often brokers that are gone are asked for, and how long each time.
const ASK_EVERY: Duration = Duration::from_millis(500);
/// After so long without a broker a new producer asks: one that had lost its only broker was seen never to find it again.
const ASK_ANEW: Duration = Duration::from_secs(30);

pub(super) struct Appender(Arc<Shared>);

struct Shared {
    /// Replaced when it has met an error that it cannot go on from.
    producer: ArcSwap<ThreadedProducer<Reports>>,
    config: ClientConfig,
    closing: AtomicBool,
}

/// Hears of deliveries and of brokers, on librdkafka's thread. `down` is set when no broker is left.
#[derive(Default)]
struct Reports {
    down: AtomicBool,
}

impl ClientContext for Reports {
    /// Comes once a second.
    fn stats(&self, statistics: Statistics) {
        APPENDED.waiting(statistics.msg_cnt, statistics.msg_size);
        if statistics.brokers.values().any(|broker| broker.nodeid >= 0 && broker.state == "UP") {
            self.is_back();
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown)
            && !self.down.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(reason, "no Kafka broker can be reached: appends are refused");
        }
    }
}

impl Reports {
    fn is_back(&self) {
        if self.down.swap(false, Ordering::Relaxed) {
            tracing::info!("a Kafka broker is back: appends are taken again");
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        fail_point!("kafka::append::reported");
        ticket.resolve(match result {
            Ok(message) => u64::try_from(message.offset()).map_or(Outcome::Unknown, Outcome::Acknowledged),
            // The broker looked at it and said no; every other error leaves open whether it was written.
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {
                Outcome::Refused(RefusalCause::TooLarge)
            }
            Err(_) => Outcome::Unknown,
        });
    }
}

impl Appender {
    pub(super) fn open(config: &KafkaConfig) -> Result<Self, LogError> {
        let client = config.appender();
        let producer = producer(&client, Reports::default())?;
        let doing = format!("no answer from Kafka at {}", config.brokers);
        producer.client().fetch_metadata(None, CONNECT).map_err(unavailable(&doing))?;
        let (producer, closing) = (ArcSwap::from_pointee(producer), AtomicBool::new(false));
        let shared = Arc::new(Shared { producer, config: client, closing });
        let asked = Arc::downgrade(&shared);
        let thread = std::thread::Builder::new().name("kafka-ask".into()).spawn(move || look_after(&asked));
        thread.map_err(|error| LogError::Unavailable(format!("thread: {error}")))?;
        Ok(Self(shared))
    }

    pub(super) fn append<'n>(&self, records: &[NewRecord<'_>], full_name: impl Fn(Topic) -> &'n str) -> Receipts {
        let (receipts, tickets) = Receipts::new(records.len());
        let producer = self.0.producer.load();
        for (record, ticket) in records.iter().zip(tickets) {
            if let Err((why, ticket)) = self.enqueue(&producer, record, full_name(record.topic), ticket) {
                ticket.resolve(Outcome::Refused(why));
            }
        }
        fail_point!("kafka::append::enqueued");
        receipts
    }

    fn enqueue(
        &self,
        producer: &ThreadedProducer<Reports>,
        record: &NewRecord<'_>,
        topic: &str,
        ticket: Ticket,
    ) -> Result<(), (RefusalCause, Ticket)> {
        if self.0.closing.load(Ordering::Relaxed) {
            return Err((RefusalCause::ShuttingDown, ticket));
        }
        if producer.context().down.load(Ordering::Relaxed) {
            return Err((RefusalCause::Unavailable, ticket));
        }
        if record.key.len() + record.value.len() > MAX_RECORD_BYTES - 512 {
            return Err((RefusalCause::TooLarge, ticket));
        }
        let message = BaseRecord::with_opaque_to(topic, Box::new(ticket))
            .partition(record.partition.cast_signed())
            .key(record.key)
            .payload(record.value);
        producer.send(message).map_err(|(error, message)| {
            let why = match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::QueueFull) => RefusalCause::Full,
                Some(RDKafkaErrorCode::MessageSizeTooLarge) => RefusalCause::TooLarge,
                _ => RefusalCause::Unavailable,
            };
            (why, *message.delivery_opaque)
        })
    }

    pub(super) fn health(&self) -> Result<(), String> {
        if self.0.closing.load(Ordering::Relaxed) {
            return Err("closing".into());
        }
        let producer = self.0.producer.load();
        if producer.context().down.load(Ordering::Relaxed) {
            return Err("no Kafka broker can be reached".into());
        }
        if let Some((_, why)) = producer.client().fatal_error() {
            return Err(format!("the producer cannot go on, and is replaced: {why}"));
        }
        Ok(())
    }

    /// Refuses what comes now, waits for what is under way.
    pub(super) fn close(&self, within: Duration) {
        self.0.closing.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + within;
        let producer = self.0.producer.load_full();
        while producer.in_flight_count() > 0 && Instant::now() < deadline {
            let _ = producer.flush(Timeout::After(Duration::from_millis(100)));
        }
    }
}

fn producer(config: &ClientConfig, reports: Reports) -> Result<ThreadedProducer<Reports>, LogError> {
    ThreadedProducer::from_config_and_context(config, reports)
        .map_err(|error| LogError::Refused(format!("kafka settings: {error}")))
}

/// Notices that a broker is back, and replaces a producer that cannot go on. Nobody else would: appends are refused
/// meanwhile, and librdkafka connects only when something is asked of it.
fn look_after(shared: &Weak<Shared>) {
    let mut down_since = None;
    while let Some(shared) = shared.upgrade() {
        let held = shared.producer.load_full();
        let reports = held.context();
        if reports.down.load(Ordering::Relaxed) && held.client().fetch_metadata(None, ASK_EVERY).is_ok() {
            reports.is_back();
        }
        if !reports.down.load(Ordering::Relaxed) {
            down_since = None;
        } else if down_since.get_or_insert_with(Instant::now).elapsed() > ASK_ANEW {
            down_since = None;
            replace(&shared, &held);
        }
        if let Some((code, why)) = held.client().fatal_error() {
            tracing::error!(?code, why, "the producer cannot go on: appends are refused until there is a new one");
            replace(&shared, &held);
        }
        drop(held);
        drop(shared);
        std::thread::park_timeout(ASK_EVERY);
    }
}

/// What the old producer still holds ends as unknown.
fn replace(shared: &Shared, old: &Arc<ThreadedProducer<Reports>>) {
    // One that replaces another for want of a broker has none either, until one answers.
    let reports = Reports { down: AtomicBool::new(old.context().down.load(Ordering::Relaxed)) };
    match producer(&shared.config, reports) {
        Ok(new) => {
            let swapped = shared.producer.swap(Arc::new(new));
            drop(swapped);
            tracing::info!("a new producer takes the appends");
            // Ending it takes a moment, which no caller of `append` should wait.
            while Arc::strong_count(old) > 1 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Err(error) => tracing::warn!(%error, "no new producer yet"),
    }
}
