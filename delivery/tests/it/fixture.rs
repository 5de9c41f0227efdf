//! A log with one partition, and coordinators that a test can end and start again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use millrace_base::Clock;
use millrace_contracts::topics::{
    Call, CallError, DeadLetterView, Delivery, Name, Principal, Published, Pull, PushPatch, Reply, Request, Start,
    SubscriptionSettings, TopicSettings,
};
use millrace_contracts::{Names, Topic};
use millrace_delivery::{CoordinatorConfig, Coordinators, Keyring, Targets};
use millrace_log::{EmbeddedConfig, EmbeddedLog, KafkaConfig, KafkaLog, Log, LogError, Status};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The timeout of every wait of a test.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// The log of a test.
pub(crate) struct Fixture {
    pub(crate) log: Log,
    pub(crate) names: Names,
    /// The brokers; none on the embedded engine.
    pub(crate) brokers: &'static str,
    config: Option<KafkaConfig>,
    /// The same for each coordinator, or the next one could not open the secrets of the one before.
    keyring: Arc<Keyring>,
    _directory: Option<tempfile::TempDir>,
}

/// Coordinators that run.
pub(crate) struct Running {
    coordinators: Coordinators,
    stop: CancellationToken,
    task: JoinHandle<Result<(), LogError>>,
}

impl Fixture {
    /// On the shared broker, with a topic prefix of its own; `None` without a broker.
    pub(crate) async fn kafka(test: &str) -> Option<Self> {
        let brokers = millrace_testkit::kafka(&format!("coordinators, {test}"))?;
        let config = format!(
            "brokers = {brokers:?}\npartitions = 1\nreplication_factor = 1\nmin_insync_replicas = 1\n\
             max_queue_records = 100000\nmax_queue_bytes = \"64MiB\"\nlinger = \"1ms\"\nmessage_timeout = \"5s\"\n\
             transaction_timeout = \"6s\"\nstep_interval = \"15ms\"\nsession_timeout = \"6s\"\nproperties = {{}}\n"
        );
        let config: KafkaConfig = toml::from_str(&config).unwrap();
        let names = Names::new(&format!("{}.", millrace_testkit::unique("delivery"))).unwrap();
        let log = Log::Kafka(KafkaLog::open(config.clone(), names.clone()).unwrap());
        log.create_topics().await.unwrap();
        Some(Self { log, names, brokers, config: Some(config), keyring: keyring(), _directory: None })
    }

    /// Deletes a topic of the log and creates it again.
    pub(crate) async fn recreate(&mut self, topic: Topic) {
        let admin: AdminClient<DefaultClientContext> =
            ClientConfig::new().set("bootstrap.servers", self.brokers).create().unwrap();
        admin.delete_topics(&[&self.topic(topic)], &AdminOptions::new()).await.unwrap();
        // Producers of the topic as it was are of no more use.
        until("the topic is there again", async || {
            let config = self.config.clone().unwrap();
            self.log = Log::Kafka(KafkaLog::open(config, self.names.clone()).unwrap());
            self.log.create_topics().await.is_ok() && self.log.end(topic, 0).await == Ok(0)
        })
        .await;
    }

    pub(crate) async fn embedded() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "directory = \"{}\"\npartitions = 1\nmax_queue_records = 1000\nmax_queue_bytes = \"1MiB\"\n\
             max_record_bytes = \"64KiB\"\ncache_size = \"256KiB\"\nmemtable_size = \"1MiB\"\njournal_size = \"64MiB\"\n\
             min_free_disk = \"0B\"\nretention_bytes = \"0B\"\nmax_tail_records = 1000\nretention_check_interval = \"1h\"\n",
            directory.path().join("data").display()
        );
        let config: EmbeddedConfig = toml::from_str(&config).unwrap();
        let names = Names::default();
        let log = Log::Embedded(EmbeddedLog::open(config, names.clone()).unwrap());
        log.create_topics().await.unwrap();
        Self { log, names, brokers: "", config: None, keyring: keyring(), _directory: Some(directory) }
    }

    /// Starts coordinators.
    pub(crate) fn start(&self) -> Running {
        self.start_at(Clock::system())
    }

    /// Starts coordinators with a clock.
    pub(crate) fn start_at(&self, clock: Clock) -> Running {
        let config = CoordinatorConfig {
            url: String::new(),
            ring_bytes: 1 << 20,
            max_backlog_reads: 8,
            index: None,
            max_page_bytes: 1 << 20,
            max_leases: 1_000,
            max_polls: 100,
            max_in_flight: 100,
            targets: Targets { allowed: vec!["127.0.0.0/8".parse().unwrap()] },
            consent_origin: String::new(),
            keyring: self.keyring.clone(),
        };
        let coordinators = Coordinators::new(self.log.clone(), config, clock).unwrap();
        let (stop, (status, _)) = (CancellationToken::new(), watch::channel(Status::Starting));
        let (running, stopped) = (coordinators.clone(), stop.clone());
        let task = tokio::spawn(async move { running.run(String::new(), status, stopped).await });
        Running { coordinators, stop, task }
    }

    /// The full name of a topic of the log.
    pub(crate) fn topic(&self, topic: Topic) -> String {
        self.names.topic(&topic)
    }
}

fn keyring() -> Arc<Keyring> {
    let keys = tempfile::tempdir().unwrap();
    Arc::new(Keyring::read_or_create(&keys.path().join("keys")).unwrap())
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

impl Running {
    pub(crate) async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("it ends").unwrap().unwrap();
    }

    /// A request about the topic `t`, once somebody coordinates it.
    pub(crate) async fn try_call(&self, request: Request) -> Result<Reply, CallError> {
        let principal = Principal { name: "p".into(), admin: false };
        let call = Call { partition: 0, topic: Some(name("t")), principal, request };
        let answered = async {
            loop {
                match self.coordinators.call(call.clone()).await {
                    Err(CallError::Elsewhere) => tokio::time::sleep(Duration::from_millis(20)).await,
                    answered => return answered,
                }
            }
        };
        tokio::time::timeout(PATIENCE, answered).await.expect("a coordinator answers")
    }

    pub(crate) async fn call(&self, request: Request) -> Reply {
        self.try_call(request).await.unwrap()
    }

    /// Creates the topic and a subscription `s` of one attempt; pushed, with settings of push.
    pub(crate) async fn create(&self, push: Option<&str>) {
        let settings = TopicSettings {
            retention_ms: 86_400_000,
            delay_ms: 0,
            max_message_bytes: 1_000,
            description: String::new(),
        };
        self.call(Request::CreateTopic { settings, grants: BTreeMap::new() }).await;
        let settings = SubscriptionSettings { max_attempts: Some(1), ..SubscriptionSettings::default() };
        let push = PushPatch { push: push.map(|_| true), settings: push.map(str::to_owned) };
        self.call(Request::CreateSubscription { subscription: name("s"), settings, push, start: Start::Latest }).await;
    }

    /// Publishes a message; its offset.
    pub(crate) async fn publish(&self, id: &str) -> u64 {
        let message = Published {
            id: id.into(),
            key: None,
            idempotency_key: None,
            deliver_at_ms: None,
            content_type: "text/plain".into(),
            attributes: Vec::new(),
            body: id.into(),
        };
        let Reply::Published(answer) = self.call(Request::Publish(message)).await else { panic!("not published") };
        answer.offset
    }

    /// The next message, under a lease.
    pub(crate) async fn pull(&self) -> Option<Delivery> {
        let pull = Pull { subscription: name("s"), max: 1, wait_ms: 1_000, lease_ms: Some(60_000) };
        let Reply::Messages(messages) = self.call(Request::Pull(pull)).await else { panic!("no messages") };
        messages.into_iter().next()
    }

    pub(crate) async fn dead_letters(&self) -> Vec<DeadLetterView> {
        let request = Request::DeadLetters { subscription: name("s"), after: None, limit: 100 };
        let Reply::DeadLetters(letters, _) = self.call(request).await else { panic!("no letters") };
        letters
    }
}

/// Polls a condition until it is true, at most [`PATIENCE`].
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let polling = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, polling).await.unwrap_or_else(|_| panic!("never: {what}"));
}
