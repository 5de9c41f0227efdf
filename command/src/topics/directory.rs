//! Finds topics: a bounded cache of their metadata for publishing, and calls to their coordinators.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use millrace_base::Size;
use millrace_base::{Bounds, Span, Violation};
use millrace_contracts::topics::{
    Call, CallError, Coordinate, Delay, Grant, Listing, Message, Name, Principal, PublishAnswer, Published, Reply,
    Request, TopicSettings, TopicView, partition_of_topic,
};
use millrace_contracts::{Code, Refusal, Topic};
use millrace_log::{Log, NewRecord, Outcome};
use millrace_service::http::HttpLimits;
use quick_cache::sync::Cache;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use super::legacy::config::LegacyConfig;
use crate::intake::{Durability, refusal_of};

/// How long a topic's metadata is used before it is looked up again.
const FRESH: Duration = Duration::from_secs(1);
/// How long it is used for publishing while its coordinator does not answer.
const STALE: Duration = Duration::from_secs(15);
/// How long a call waits for a coordinator to take its partition over.
const TAKEOVER: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(50);

/// Settings of topics.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TopicsConfig {
    /// Longest retention of a topic, and that of the log's topic `messages`.
    pub max_retention: Span,
    /// Largest message of a topic that sets no other bound.
    pub max_message_bytes: Size,
    /// Topics whose metadata is cached for publishing.
    pub cached_topics: usize,
    /// The earlier system's calls.
    pub legacy: LegacyConfig,
}

impl Default for TopicsConfig {
    fn default() -> Self {
        Self {
            max_retention: Span(Duration::from_hours(7 * 24)),
            max_message_bytes: Size::from_kib(128),
            cached_topics: 65_536,
            legacy: LegacyConfig::default(),
        }
    }
}

impl TopicsConfig {
    /// Settings outside their bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let mut bounds = Bounds::new();
        bounds
            .range("max_retention", &self.max_retention, &(Span::from_secs(60)..=Span(Duration::from_hours(7 * 24))))
            .range("max_message_bytes", &self.max_message_bytes, &(Size(1)..=Size::from_mib(1)))
            .range("cached_topics", &self.cached_topics, &(1..=10_000_000))
            .section("legacy", self.legacy.validate());
        bounds.into_violations()
    }

    /// The retention of a topic that sets none, in ms.
    pub(super) fn default_retention_ms(&self) -> u64 {
        self.max_retention.as_millis().min(72 * 3_600_000)
    }

    /// The settings of a topic that sets none.
    pub(super) fn default_settings(&self) -> TopicSettings {
        TopicSettings {
            retention_ms: self.default_retention_ms(),
            delay_ms: 0,
            max_message_bytes: self.max_message_bytes.0,
            description: String::new(),
        }
    }

    /// Bounds of a message's body: the topic's own decides, up to the largest one there is.
    pub(super) fn body_limits(limits: &HttpLimits) -> HttpLimits {
        HttpLimits { max_body_bytes: Size::from_mib(1), max_inflated_bytes: Size::from_mib(1), ..limits.clone() }
    }

    /// Bounds of a batch's body.
    pub(super) fn batch_limits(limits: &HttpLimits) -> HttpLimits {
        HttpLimits { max_body_bytes: Size::from_mib(10), max_inflated_bytes: Size::from_mib(10), ..limits.clone() }
    }
}

/// For a process that reaches no coordinator: every call ends as unavailable.
#[derive(Debug, Clone, Copy)]
pub struct NoCoordinator;

impl Coordinate for NoCoordinator {
    fn call(&self, _: Call) -> Pin<Box<dyn Future<Output = Result<Reply, CallError>> + Send + '_>> {
        Box::pin(std::future::ready(Err(CallError::Elsewhere)))
    }
}

/// The directory.
pub(crate) struct Directory {
    pub(super) config: TopicsConfig,
    log: Log,
    coordinate: Arc<dyn Coordinate>,
    cache: Cache<Name, Cached>,
}

#[derive(Clone)]
struct Cached {
    topic: Arc<TopicView>,
    at: Instant,
}

/// What became of a message: of one that was answered before the log's report, without its offset.
#[derive(Debug)]
pub(super) struct Placement {
    pub(super) answer: PublishAnswer,
    pub(super) offset: Option<u64>,
}

/// The coordinator replied to another request.
pub(super) fn unexpected() -> Refusal {
    Refusal::new(Code::Internal, "the coordinator's reply is of another kind")
}

impl Directory {
    pub(crate) fn new(config: TopicsConfig, log: Log, coordinate: Arc<dyn Coordinate>) -> Self {
        let cache = Cache::new(config.cached_topics);
        Self { config, log, coordinate, cache }
    }

    fn partitions(&self) -> u32 {
        self.log.partitions(Topic::MESSAGES)
    }

    /// Brings a request to the topic's coordinator; waits a moment for one that takes over.
    pub(super) async fn call(&self, name: &Name, principal: Principal, request: Request) -> Result<Reply, Refusal> {
        let changes =
            matches!(request, Request::AlterTopic { .. } | Request::SetGrant { .. } | Request::DeleteTopic { .. });
        let partition = partition_of_topic(name, self.partitions());
        let call = Call { partition, topic: Some(name.clone()), principal, request };
        let reply = self.bring(call).await;
        if changes {
            self.cache.remove(name);
        }
        reply
    }

    async fn bring(&self, call: Call) -> Result<Reply, Refusal> {
        let deadline = Instant::now() + TAKEOVER;
        loop {
            match self.coordinate.call(call.clone()).await {
                Ok(reply) => return Ok(reply),
                Err(CallError::Refused(refusal)) => return Err(refusal),
                Err(CallError::Elsewhere) if Instant::now() + RETRY < deadline => sleep(RETRY).await,
                Err(CallError::Elsewhere) => {
                    let refusal =
                        Refusal::new(Code::Unavailable, "no coordinator has the topic's partition at the moment");
                    return Err(refusal.retry_after(Duration::from_secs(2)));
                }
            }
        }
    }

    /// The topic, if the principal may publish to it.
    pub(super) async fn publishable(&self, name: &Name, principal: &Principal) -> Result<Arc<TopicView>, Refusal> {
        let topic = self.look_up(name, principal).await?;
        if name.is_reserved() {
            return Err(Refusal::new(Code::Forbidden, "only Millrace publishes to its own topics").field("topic"));
        }
        let grant = Grant::of(&topic.grants, &principal.name);
        if principal.admin || topic.owner == principal.name || grant.publish || grant.manage {
            Ok(topic)
        } else {
            Err(Refusal::new(Code::Forbidden, "the topic belongs to another principal").field("topic"))
        }
    }

    async fn look_up(&self, name: &Name, principal: &Principal) -> Result<Arc<TopicView>, Refusal> {
        let cached = self.cache.get(name);
        if let Some(cached) = cached.as_ref().filter(|cached| cached.at.elapsed() < FRESH) {
            return Ok(cached.topic.clone());
        }
        let asked = Instant::now();
        let call = self.call(name, principal.clone(), Request::LookUpTopic);
        let usable = cached.filter(|cached| cached.at.elapsed() < STALE);
        // With an entry at hand a publish does not wait for a coordinator that is moving.
        let patience = if usable.is_some() { Duration::from_millis(200) } else { TAKEOVER * 2 };
        let unavailable = || Refusal::new(Code::Unavailable, "no coordinator has the topic's partition at the moment");
        match (timeout(patience, call).await.unwrap_or_else(|_| Err(unavailable())), usable) {
            (Ok(Reply::Topic { topic, .. }), _) => {
                let topic = Arc::new(*topic);
                self.cache.insert(name.clone(), Cached { topic: topic.clone(), at: asked });
                Ok(topic)
            }
            (Ok(_), _) => Err(unexpected()),
            (Err(refusal), Some(cached)) if refusal.code == Code::Unavailable => Ok(cached.topic),
            (Err(refusal), _) => {
                self.cache.remove(name);
                Err(refusal)
            }
        }
    }

    /// A page of all topics: every coordinator's, merged by name.
    pub(super) async fn list_topics(
        &self,
        principal: Principal,
        listing: Listing,
    ) -> Result<(Vec<TopicView>, bool), Refusal> {
        let limit = listing.limit;
        let call = |partition| Call {
            partition,
            topic: None,
            principal: principal.clone(),
            request: Request::ListTopics(listing.clone()),
        };
        let replies = join_all((0..self.partitions()).map(|partition| self.bring(call(partition)))).await;
        let (mut all, mut more) = (Vec::new(), false);
        for reply in replies {
            let Reply::Topics(topics, rest) = reply? else { return Err(unexpected()) };
            all.extend(topics);
            more |= rest;
        }
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        more |= all.len() > limit;
        all.truncate(limit);
        Ok((all, more))
    }

    /// Publishes through the coordinator.
    pub(super) async fn publish(
        &self,
        name: &Name,
        principal: Principal,
        published: Published,
    ) -> Result<PublishAnswer, Refusal> {
        match self.call(name, principal, Request::Publish(published)).await? {
            Reply::Published(answer) => Ok(answer),
            _ => Err(unexpected()),
        }
    }

    /// Appends one plain message.
    pub(super) async fn append(
        &self,
        name: &Name,
        topic: &TopicView,
        published: Published,
        now_ms: i64,
        durability: Durability,
    ) -> Result<Placement, Refusal> {
        let mut placed = self.append_all(name, topic, vec![Ok(published)], now_ms, durability).await;
        placed.pop().unwrap_or_else(|| Err(unexpected()))
    }

    /// Appends plain messages by one call to the log; what was refused before stays so.
    pub(super) async fn append_all(
        &self,
        name: &Name,
        topic: &TopicView,
        read: Vec<Result<Published, Refusal>>,
        now_ms: i64,
        durability: Durability,
    ) -> Vec<Result<Placement, Refusal>> {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for published in read.iter().flatten() {
            encode(topic, published, now_ms, &mut bytes);
            ends.push(bytes.len());
        }
        let mut from = 0;
        let mut records = Vec::with_capacity(ends.len());
        for end in ends {
            let (topic, partition) = (Topic::MESSAGES, topic.id.partition);
            records.push(NewRecord { topic, partition, key: name.as_str().as_bytes(), value: &bytes[from..end] });
            from = end;
        }
        let receipts = match durability {
            Durability::Replicated => self.log.append_replicated(&records),
            Durability::Leader | Durability::Cached => self.log.append(&records),
        };
        let early = durability == Durability::Cached && self.log.health().is_ok();
        let outcomes: Vec<Option<Outcome>> = if early {
            (0..records.len()).map(|index| receipts.refused(index).map(Outcome::Refused)).collect()
        } else {
            receipts.await.into_iter().map(Some).collect()
        };
        let mut outcomes = outcomes.into_iter();
        let place = |published: Published| {
            let offset = match outcomes.next().flatten() {
                Some(Outcome::Acknowledged(offset)) => Some(offset),
                Some(Outcome::Refused(cause)) => return Err(refusal_of(cause)),
                Some(Outcome::Unknown) => {
                    return Err(Refusal::new(Code::OutcomeUnknown, "the message may or may not have been stored"));
                }
                None => None,
            };
            let answer = PublishAnswer {
                offset: offset.unwrap_or_default(),
                id: published.id,
                published_ms: now_ms,
                duplicate: false,
            };
            Ok(Placement { answer, offset })
        };
        let mut place = place;
        read.into_iter().map(|published| published.and_then(&mut place)).collect()
    }
}

fn encode(topic: &TopicView, published: &Published, now_ms: i64, out: &mut Vec<u8>) {
    let message = Message {
        topic_id: topic.id.offset,
        published_ms: now_ms,
        id: &published.id,
        delay: Delay::None,
        key: published.key.as_deref(),
        idempotency_key: None,
        nonce: None,
        content_type: &published.content_type,
        attributes: published.attributes.iter().map(|(name, value)| (&**name, &**value)).collect(),
        body: &published.body,
    };
    message.encode(out);
}
