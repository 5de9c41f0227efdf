//! Requests to coordinators over an embedded log, in one process.

use std::collections::BTreeMap;

use millrace_base::{Clock, Size, Span};
use millrace_contracts::Names;
use millrace_contracts::topics::{
    AckSelection, Change, Delay, Delivery, Message, Name, Principal, Published, Pull, PushPatch, Request, Start,
    StateEntry, SubscriptionSettings, TopicCommand, TopicSettings, TopicStateKey, partition_of_topic,
};
use millrace_log::{EmbeddedConfig, EmbeddedLog};
use serde_json::{Value, json};

use super::*;
use crate::Config;

const PATIENCE: Duration = Duration::from_mins(1);

/// Coordinators at work.
pub(super) struct Running {
    pub(super) coordinators: Coordinators,
    stop: CancellationToken,
    _directory: tempfile::TempDir,
}

impl Running {
    async fn start() -> Self {
        Self::with_records_of(Size::from_mib(1)).await
    }

    /// A log that takes records up to a size.
    async fn with_records_of(max_record_bytes: Size) -> Self {
        Self::with(max_record_bytes, |_, _| ()).await
    }

    pub(super) async fn with(max_record_bytes: Size, adapt: impl FnOnce(&EmbeddedLog, &mut CoordinatorConfig)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let embedded = EmbeddedConfig {
            directory: directory.path().join("log"),
            partitions: 3,
            max_queue_records: 10_000,
            max_queue_bytes: Size::from_mib(16),
            max_record_bytes,
            cache_size: Size::from_mib(1),
            memtable_size: Size::from_mib(1),
            journal_size: Size::from_mib(64),
            min_free_disk: Size(0),
            retention_bytes: Size(0),
            max_tail_records: 1_000,
            retention_check_interval: Span::from_secs(60),
        };
        let open = move || EmbeddedLog::open(embedded, Names::default());
        let embedded = tokio::task::spawn_blocking(open).await.unwrap().unwrap();
        let mut config = Config::default().coordinators(None, None, None).unwrap();
        adapt(&embedded, &mut config);
        let log = Log::Embedded(embedded);
        log.create_topics().await.unwrap();
        let coordinators = Coordinators::new(log, config, Clock::system()).unwrap();
        let (stop, (status, _)) = (CancellationToken::new(), watch::channel(Status::Starting));
        let (own, ended) = (coordinators.clone(), stop.clone());
        tokio::spawn(async move { own.run("test".into(), status, ended).await });
        Self { coordinators, stop, _directory: directory }
    }

    pub(super) async fn call(&self, topic: &str, request: Request) -> Result<Reply, Refusal> {
        let topic = Name::of_system(topic).unwrap();
        let partition = partition_of_topic(&topic, 3);
        let principal = Principal { name: "somebody".into(), admin: true };
        let call = Call { partition, topic: Some(topic), principal, request };
        let answered = async {
            loop {
                match self.coordinators.call(call.clone()).await {
                    Ok(reply) => return Ok(reply),
                    Err(CallError::Refused(refusal)) => return Err(refusal),
                    // It takes over.
                    Err(CallError::Elsewhere) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.expect("a coordinator is in force")
    }

    pub(super) async fn create(&self, topic: &str) {
        let settings =
            TopicSettings { retention_ms: 60_000, delay_ms: 0, max_message_bytes: 100, description: String::new() };
        self.call(topic, Request::CreateTopic { settings, grants: BTreeMap::new() }).await.unwrap();
    }

    pub(super) async fn subscribe(&self, topic: &str, subscription: &str, start: Start) {
        let push = PushPatch { push: Some(false), settings: None };
        let (subscription, settings) = (Name::parse(subscription).unwrap(), SubscriptionSettings::default());
        let created = self.call(topic, Request::CreateSubscription { subscription, settings, push, start }).await;
        assert!(matches!(created, Ok(Reply::Subscription { created: true, .. })), "{created:?}");
    }

    pub(super) async fn publish(&self, topic: &str, body: &str) {
        let published = Published {
            id: body.to_owned(),
            key: None,
            idempotency_key: None,
            deliver_at_ms: None,
            content_type: "application/json".into(),
            attributes: Vec::new(),
            body: body.as_bytes().to_vec(),
        };
        self.call(topic, Request::Publish(published)).await.unwrap();
    }

    pub(super) async fn messages(&self, topic: &str, request: Request) -> Vec<Delivery> {
        let Ok(Reply::Messages(messages)) = self.call(topic, request).await else { panic!("no messages") };
        messages
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_current_message_is_acknowledged_once_without_a_token() {
    let running = Running::start().await;
    running.create("t").await;
    running.publish("t", "1").await;
    running.publish("t", "22").await;
    running.subscribe("t", "own", Start::Newest).await;
    let own = || Name::parse("own").unwrap();
    let current = async || {
        let messages = running.messages("t", Request::Current(own())).await;
        messages.iter().map(|message| String::from_utf8(message.body.clone()).unwrap()).collect::<Vec<_>>()
    };
    let ack = async || running.call("t", Request::AckCurrent(own())).await;
    assert_eq!(ack().await, Ok(Reply::Position(None)), "nothing was handed out");
    assert_eq!(current().await, ["22"], "it begins at the newest message");
    assert_eq!(current().await, ["22"]);
    assert_eq!(ack().await, Ok(Reply::Position(Some(13 + 1 + 2))));
    assert_eq!(ack().await, Ok(Reply::Position(None)));
    assert!(current().await.is_empty());
    running.publish("t", "3").await;
    assert_eq!(current().await, ["3"]);
    assert_eq!(ack().await, Ok(Reply::Position(Some(13 + 1 + 2 + 13 + 1 + 1))));
    // It is handed out again while it is acknowledged, or acknowledged by its token meanwhile.
    running.publish("t", "4").await;
    assert_eq!(current().await, ["4"]);
    let (acked, _) = tokio::join!(ack(), current());
    assert_eq!(acked, Ok(Reply::Position(Some(13 + 1 + 2 + 2 * (13 + 1 + 1)))));
    assert_eq!(ack().await, Ok(Reply::Position(None)));
    running.publish("t", "5").await;
    let handed_out = running.messages("t", Request::Current(own())).await;
    let tokens = handed_out.into_iter().map(|message| message.token).collect();
    let selection = AckSelection::Tokens(tokens);
    running.call("t", Request::Ack { subscription: own(), selection }).await.unwrap();
    assert_eq!(ack().await, Ok(Reply::Position(None)));
    let missing = running.call("t", Request::Current(Name::parse("other").unwrap())).await;
    assert_eq!(missing.map_err(|refusal| refusal.code), Err(Code::NotFound));
}

/// There may be very many that are read now and then.
#[tokio::test(flavor = "multi_thread")]
async fn a_subscription_that_is_settled_leaves_nothing_in_memory() {
    let running = Running::start().await;
    running.create("t").await;
    running.subscribe("t", "s", Start::Latest).await;
    running.publish("t", "1").await;
    let name = || Name::parse("s").unwrap();
    let pull = |wait_ms, lease_ms| Request::Pull(Pull { subscription: name(), max: 1, wait_ms, lease_ms });
    let shard = running.coordinators.0.shard(partition_of_topic(&Name::parse("t").unwrap(), 3)).unwrap();
    let held = || shard.lock().readings.len();
    assert_eq!(running.messages("t", pull(0, None)).await.len(), 1);
    assert_eq!(held(), 0);
    let leased = running.messages("t", pull(0, Some(60_000))).await;
    assert_eq!((leased.len(), held()), (1, 1), "its lease hides it");
    let selection = AckSelection::Tokens(leased.into_iter().map(|message| message.token).collect());
    running.call("t", Request::Ack { subscription: name(), selection }).await.unwrap();
    assert_eq!(held(), 0);
    let (waited, ()) = tokio::join!(running.messages("t", pull(60_000, None)), running.publish("t", "2"));
    assert_eq!((waited.len(), held()), (1, 0));
}

/// Whoever deletes it may be gone before the answer. Another topic of its name has none of its messages.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_deleted_leaves_nothing_in_memory() {
    let running = Running::start().await;
    running.create("t").await;
    running.subscribe("t", "s", Start::Latest).await;
    running.publish("t", "1").await;
    let name = Name::parse("t").unwrap();
    let subscription = Name::parse("s").unwrap();
    let pull = Request::Pull(Pull { subscription, max: 1, wait_ms: 0, lease_ms: Some(60_000) });
    assert_eq!(running.messages("t", pull).await.len(), 1);
    let shard = running.coordinators.0.shard(partition_of_topic(&name, 3)).unwrap();
    shard.submit(Some(&name), None, Change::DeleteTopic { version: None }).await.unwrap();
    let inner = shard.lock();
    let in_ring = inner.ring.iter().flat_map(|ring| ring.after(&name, -1)).count();
    assert_eq!((in_ring, inner.heads.contains_key(&name), inner.readings.len()), (0, false, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_published_to_their_topic_once() {
    let running = Running::start().await;
    running.subscribe("millrace-events", "watch", Start::Latest).await;
    running.create("t").await;
    running.subscribe("t", "s", Start::Latest).await;
    let name = || Name::parse("s").unwrap();
    for request in [Request::Suspend(name()), Request::Suspend(name()), Request::Resume(name())] {
        running.call("t", request).await.unwrap();
    }
    // One of a subscription of the events themselves is not reported.
    running.call("millrace-events", Request::Suspend(Name::parse("watch").unwrap())).await.unwrap();
    running.call("millrace-events", Request::Resume(Name::parse("watch").unwrap())).await.unwrap();
    running.call("t", Request::Suspend(name())).await.unwrap();
    let pull = || {
        let subscription = Name::parse("watch").unwrap();
        Request::Pull(Pull { subscription, max: 10, wait_ms: 0, lease_ms: None })
    };
    let three = async {
        while running.messages("millrace-events", pull()).await.len() < 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, three).await.expect("three events");
    let events = running.messages("millrace-events", pull()).await;
    let bodies: Vec<Value> = events.iter().map(|event| serde_json::from_slice(&event.body).unwrap()).collect();
    let types: Vec<&Value> = bodies.iter().map(|body| &body["type"]).collect();
    assert_eq!(types, ["subscription.suspended", "subscription.recovered", "subscription.suspended"]);
    assert!(bodies.iter().all(|body| body["subject"] == json!("t/s")), "{bodies:?}");
    let deleted = running.call("millrace-events", Request::DeleteTopic { if_match: None }).await;
    assert_eq!(deleted.map_err(|refusal| refusal.code), Err(Code::Forbidden));
}

/// An event about names this long is larger than the log takes, a command about them is not.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_cannot_be_published_hold_nothing_else_up() {
    let running = Running::with_records_of(Size(1_200)).await;
    let long = "x".repeat(120);
    let topic = Name::parse(&long).unwrap();
    running.create(&long).await;
    running.subscribe(&long, &long, Start::Latest).await;
    running.call(&long, Request::Suspend(topic.clone())).await.unwrap();
    running.publish(&long, "1").await;
    let shared = &running.coordinators.0;
    let shard = shared.shard(partition_of_topic(&topic, 3)).unwrap();
    let head = || shard.lock().fold.topic(&topic).unwrap().head.offset;
    let written = async {
        while head() < 0 {
            housekeeping::work(shared, &shard, true).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("the topic's head is durable");
    assert_eq!(shard.lock().fold.events().count(), 1, "its event waits");
}

/// It may have been acknowledged. One that nobody in force has written counts for nothing, and stops nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_of_a_newer_version_is_not_skipped() {
    let running = Running::start().await;
    running.create("t").await;
    let shared = &running.coordinators.0;
    let partition = partition_of_topic(&Name::parse("t").unwrap(), 3);
    let in_force = shared.shard(partition).unwrap().lock().nonce.unwrap();
    let append = async |nonce| {
        let change = Change::Resume;
        let command = TopicCommand { nonce, number: 1_000, at_ms: 1, topic: None, subscription: None, change };
        let mut value = Vec::new();
        command.encode(&mut value);
        let name = value.len() - "resume\"".len();
        value[name..name + "resume".len()].copy_from_slice(b"unseen");
        shared.append(Topic::TOPIC_COMMANDS, partition, b"", &value).await.unwrap();
    };
    append(in_force ^ 1).await;
    running.subscribe("t", "s", Start::Latest).await;
    append(in_force).await;
    let stopped = async {
        while running.coordinators.partitions().contains(&partition) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, stopped).await.expect("the partition is given up");
}

/// The ring skips it too, and its publisher has sent it again: it must not be handed out under a second id.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_message_of_an_older_coordinator_is_skipped_behind_the_ring() {
    let running = Running::start().await;
    running.create("t").await;
    let (shared, name) = (&running.coordinators.0, Name::parse("t").unwrap());
    let partition = partition_of_topic(&name, 3);
    let (topic_id, in_force) = {
        let shard = shared.shard(partition).unwrap();
        let inner = shard.lock();
        (inner.fold.topic(&name).unwrap().meta.created, inner.nonce.unwrap())
    };
    let append = async |id: &str, nonce: u64| {
        let message = Message {
            topic_id,
            published_ms: 1,
            id,
            delay: Delay::None,
            key: None,
            idempotency_key: Some("k"),
            nonce: Some(nonce),
            content_type: "text/plain",
            attributes: Vec::new(),
            body: b"once",
        };
        let mut value = Vec::new();
        message.encode(&mut value);
        shared.append(Topic::MESSAGES, partition, name.as_str().as_bytes(), &value).await.unwrap().cast_signed()
    };
    let late = append("late", in_force ^ 1).await;
    let until = append("again", in_force).await + 1;
    let read = async |offset, in_force| {
        let from = backlog::ChunkFrom { offset, ordinal: 0, until, in_force };
        backlog::read_chunk(shared, partition, name.clone(), topic_id, from).await.unwrap()
    };
    let ids = |chunk: &shard::Chunk| {
        chunk.messages.iter().map(|stored| stored.message().unwrap().id.to_owned()).collect::<Vec<_>>()
    };
    // From before the opening, from behind it, and from behind a chunk.
    for from in [0, late] {
        let chunk = read(from, shard::InForce::Unread).await;
        assert_eq!(
            (ids(&chunk), chunk.until, chunk.in_force),
            (vec!["again".to_owned()], until, shard::InForce::Read(Some(in_force)))
        );
    }
    assert_eq!(ids(&read(late, shard::InForce::Read(Some(in_force))).await), ["again"]);
    assert_eq!(backlog::count(shared, partition, &name, topic_id, (late, until)).await, Ok(1));
    // Its key counts for nothing after a takeover either, although the window begins behind the opening.
    let (own, shard) = (shared.clone(), shared.shard(partition).unwrap());
    let scan = move || window::scan(&own, &shard, 0, &(late..until)).unwrap().len();
    assert_eq!(tokio::task::spawn_blocking(scan).await.unwrap(), 1);
    // What was handed out is read whoever appended it.
    assert!(backlog::read_one(shared, partition, &name, topic_id, late).await.unwrap().is_some());
}

/// It would be skipped for good.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_topic_was_taken_back_waits_until_it_is_applied_again() {
    let running = Running::start().await;
    running.create("t").await;
    let (shared, name) = (&running.coordinators.0, Name::parse("t").unwrap());
    let partition = partition_of_topic(&name, 3);
    let shard = shared.shard(partition).unwrap();
    let key = || TopicStateKey::Topic(name.clone());
    let meta = {
        let mut inner = shard.lock();
        let meta = inner.fold.topic(&name).unwrap().meta.clone();
        inner.fold.put(key(), None);
        inner.folded.0 = 0;
        shared.rings_changed();
        meta
    };
    let message = Message {
        topic_id: meta.created,
        published_ms: 1,
        id: "m",
        delay: Delay::None,
        key: None,
        idempotency_key: None,
        nonce: None,
        content_type: "text/plain",
        attributes: Vec::new(),
        body: b"",
    };
    let mut value = Vec::new();
    message.encode(&mut value);
    shared.append(Topic::MESSAGES, partition, name.as_str().as_bytes(), &value).await.unwrap();
    // The reader of all partitions goes on meanwhile.
    let elsewhere = |name: &String| partition_of_topic(&Name::parse(name).unwrap(), 3) != partition;
    let other = (0..100).map(|number| format!("other-{number}")).find(elsewhere).unwrap();
    running.create(&other).await;
    running.publish(&other, "1").await;
    {
        let mut inner = shard.lock();
        inner.fold.put(key(), Some(StateEntry::Topic(meta)));
        inner.folded.0 = inner.folded.1;
        shared.rings_changed();
    }
    let counted = async {
        while shard.lock().head(&name).ordinal == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("the message is read");
}
