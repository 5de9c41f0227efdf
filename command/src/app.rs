//! What all requests share.

use std::fmt::Write as _;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use metrics::gauge;
use millrace_base::Clock;
use millrace_contracts::topics::Coordinate;
use millrace_contracts::{Names, Topic, metric};
use millrace_log::Log;
use millrace_service::net::MemoryBudget;

use crate::Config;
use crate::intake::{Appender, Position, Terms};
use crate::log_id::LogId;
use crate::metrics::Metrics;
use crate::topics::directory::Directory;

pub(crate) const POSITION: HeaderName = HeaderName::from_static("millrace-position");

/// What all requests share.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) appender: Appender,
    pub(crate) bodies: MemoryBudget,
    pub(crate) clock: Clock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) directory: Directory,
    pub(crate) log_id: LogId,
    /// The name of the topic of events.
    topic: String,
}

impl App {
    pub(crate) fn new(
        config: &Config,
        log: Log,
        names: &Names,
        clock: Clock,
        coordinate: Arc<dyn Coordinate>,
    ) -> Arc<Self> {
        let metrics = Arc::new(Metrics::new());
        Arc::new(Self {
            directory: Directory::new(config.topics.clone(), log.clone(), coordinate),
            log_id: LogId::new(log.clone()),
            appender: Appender::new(log, metrics.clone()),
            bodies: MemoryBudget::new(config.max_body_memory.0).with_gauge(gauge!(metric::HTTP_BODY_BYTES.name)),
            topic: names.topic(&Topic::EVENTS),
            config: config.clone(),
            clock,
            metrics,
        })
    }

    /// A record's position in the log: `{topic}/{partition}@{offset}`, as `millrace tail` writes it.
    pub(crate) fn position(&self, at: Position) -> String {
        // Once per event: an exact capacity is one allocation, which a header takes over; `format!` costs three times as much.
        let (mut partition, mut offset) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (partition, offset) = (partition.format(at.partition), offset.format(at.offset));
        let mut text = String::with_capacity(self.topic.len() + partition.len() + offset.len() + 2);
        for part in [self.topic.as_str(), "/", partition, "@", offset] {
            text.push_str(part);
        }
        text
    }

    /// The positions of these records as one text that reads wait for: `{topic}/{partition}@{offset},{partition}@{offset}`, of
    /// each partition the highest offset.
    pub(crate) fn positions(&self, all: impl Iterator<Item = Position>) -> Option<String> {
        let mut highest: Vec<Position> = Vec::new();
        for at in all {
            match highest.iter_mut().find(|known| known.partition == at.partition) {
                Some(known) => known.offset = known.offset.max(at.offset),
                None => highest.push(at),
            }
        }
        let (first, others) = highest.split_first()?;
        let mut text = self.position(*first);
        text.reserve(others.len() * 16);
        for at in others {
            let _ = write!(text, ",{}@{}", at.partition, at.offset);
        }
        Some(text)
    }

    /// Adds the headers of an accepted event: its position, if the log has reported it, and the preference applied.
    pub(crate) fn add_headers(&self, at: Option<Position>, terms: Terms, headers: &mut HeaderMap) {
        if let Some(Ok(position)) = at.map(|at| HeaderValue::try_from(self.position(at))) {
            headers.insert(POSITION, position);
        }
        terms.add_header(headers);
    }
}
