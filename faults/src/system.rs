//! The system under test: servers, links and instances of each service, by name.

mod intake;
mod tool;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use millrace_testkit::{
    Brokers, Link, Postgres, Proxy, Redis, Response, Service, free_port, http_get, scratch_dir, unique, wait_until,
};

use crate::node::Node;

/// The longest wait for a service to be ready.
pub(crate) const READY: Duration = Duration::from_secs(90);
/// The maximum number of instances of a role; each has a link to the brokers.
const MAX_INSTANCES: usize = 4;
/// The services of the Kafka engine in every row; the rows of topics add `delivery`.
pub const ROLES: [&str; 4] = ["command", "processor", "materializer", "query"];

/// The engine of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// One process, one directory.
    Embedded,
    /// Brokers, Redis, PostgreSQL and processes of each service.
    Kafka,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Embedded => "embedded",
            Self::Kafka => "kafka",
        })
    }
}

/// The size and settings of a system.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The engine.
    pub engine: Engine,
    /// Brokers: 1, or 3 with three replicas of which two are in sync.
    pub brokers: usize,
    /// Instances of each service on Kafka.
    pub instances: usize,
    /// Whether `instance` is set for each: then it keeps its partitions over a restart, else it leaves and rejoins.
    pub named: bool,
    /// Whether messages come over TCP, and journals are written.
    pub intake: bool,
    /// Further settings of every process, which take precedence.
    pub settings: Vec<(String, String)>,
    /// Environment variables of every process.
    pub environment: Vec<(String, String)>,
}

/// All processes of a run. Dropping it ends them.
#[derive(Debug)]
pub struct System {
    /// The engine.
    pub engine: Engine,
    /// The services' instances.
    pub nodes: Vec<Node>,
    /// The brokers, on Kafka.
    pub brokers: Option<Brokers>,
    /// Redis, on Kafka.
    pub redis: Option<Redis>,
    /// PostgreSQL, on Kafka.
    pub postgres: Option<Postgres>,
    links: BTreeMap<String, Proxy>,
    /// The settings of the tools, which bypass the links.
    settings: Vec<(String, String)>,
    prefix: String,
    folder: PathBuf,
    /// The longest wait for the services to be ready.
    pub(crate) ready: Duration,
}

impl Setup {
    /// One node of the embedded engine, or two of each service on one broker.
    pub fn new(engine: Engine) -> Self {
        Self {
            engine,
            brokers: 1,
            instances: 2,
            named: true,
            intake: false,
            settings: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// Adds a setting.
    #[must_use]
    pub fn set(mut self, key: &str, value: &impl ToString) -> Self {
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }
}

fn pair(key: &str, value: &impl ToString) -> (String, String) {
    (key.to_owned(), value.to_string())
}

fn port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

impl System {
    /// Starts everything and waits until it is ready.
    ///
    /// # Errors
    /// The missing program, or why something did not start.
    pub fn start(setup: &Setup) -> Result<Self, String> {
        let mut system = Self {
            engine: setup.engine,
            nodes: Vec::new(),
            brokers: None,
            redis: None,
            postgres: None,
            links: BTreeMap::new(),
            settings: Vec::new(),
            prefix: "millrace.".to_owned(),
            folder: scratch_dir("faults"),
            ready: READY,
        };
        match setup.engine {
            Engine::Embedded => system.start_embedded(setup)?,
            Engine::Kafka => system.start_kafka(setup)?,
        }
        system.wait_ready()?;
        Ok(system)
    }

    fn start_embedded(&mut self, setup: &Setup) -> Result<(), String> {
        let (admin, public, query) = (port(), port(), port());
        self.settings = vec![
            pair("embedded.directory", &self.data().display()),
            pair("embedded.min_free_disk", &"1MiB"),
            pair("command.admin", &admin),
            pair("command.listen", &public),
            pair("query.listen", &query),
        ];
        self.settings.extend(setup.settings.iter().cloned());
        self.add(setup, "up", 1, admin, vec![("command", public), ("query", query)], &[])
    }

    fn start_kafka(&mut self, setup: &Setup) -> Result<(), String> {
        self.prefix = format!("{}.", unique("faults"));
        let names: Vec<String> = ["command", "processor", "materializer", "delivery"]
            .iter()
            .flat_map(|role| (1..=MAX_INSTANCES).map(move |number| format!("{role}-{number}")))
            .collect();
        let brokers = Brokers::start(setup.brokers, &names.iter().map(String::as_str).collect::<Vec<_>>())?;
        let (redis, postgres) = (Redis::start()?, Postgres::start()?);
        let in_sync = setup.brokers.saturating_sub(1).max(1);
        self.settings = vec![
            pair("engine", &"kafka"),
            pair("prefix", &self.prefix),
            pair("kafka.brokers", &brokers.direct()),
            pair("kafka.replication_factor", &setup.brokers),
            pair("kafka.min_insync_replicas", &in_sync),
            pair("kafka.session_timeout", &"6s"),
            pair("kafka.transaction_timeout", &"6s"),
            pair("redis.url", &redis.url()),
            pair("postgres.url", &postgres.url()),
            pair("postgres.schema", &self.schema()),
            pair("postgres.max_connections", &4),
        ];
        self.settings.extend(setup.settings.iter().cloned());
        for role in ["materializer", "query"] {
            for (store, url) in [("redis", redis.url()), ("postgres", postgres.url())] {
                let server = address_of(&url)?;
                let proxy = Proxy::start(server).map_err(|error| error.to_string())?;
                self.links.insert(format!("{store}-{role}"), proxy);
            }
        }
        (self.brokers, self.redis, self.postgres) = (Some(brokers), Some(redis), Some(postgres));
        for role in ROLES {
            for number in 1..=setup.instances {
                self.add_instance(setup, role, number)?;
            }
        }
        Ok(())
    }

    /// Starts one more instance of a role, with links of its own to the brokers.
    ///
    /// # Errors
    /// If a proxy cannot be started.
    pub fn add_instance(&mut self, setup: &Setup, role: &'static str, number: usize) -> Result<(), String> {
        let admin = port();
        let brokers = self.brokers.as_ref().ok_or("no brokers")?;
        let mut own = vec![pair(&format!("{role}.admin"), &admin)];
        // The query service reads stores only.
        if role != "query" {
            own.push(pair("kafka.brokers", &brokers.through(&format!("{role}-{number}"))));
        }
        if role == "delivery" {
            own.push(pair("delivery.listen", &port()));
        }
        for store in ["redis", "postgres"] {
            if let Some(proxy) = self.links.get(&format!("{store}-{role}")) {
                let url = &self.settings.iter().find(|(key, _)| *key == format!("{store}.url")).ok_or("no URL")?.1;
                let direct = address_of(url)?.to_string();
                own.push(pair(&format!("{store}.url"), &url.replace(&direct, &proxy.address().to_string())));
            }
        }
        let public: Vec<_> = if ["command", "query"].contains(&role) { vec![(role, port())] } else { Vec::new() };
        own.extend(public.iter().map(|(role, address)| pair(&format!("{role}.listen"), address)));
        self.add(setup, role, number, admin, public, &own)
    }

    fn add(
        &mut self,
        setup: &Setup,
        role: &'static str,
        number: usize,
        admin: SocketAddr,
        public: Vec<(&'static str, SocketAddr)>,
        own: &[(String, String)],
    ) -> Result<(), String> {
        let name = format!("{role}-{number}");
        let instance = setup.named.then(|| pair("instance", &name));
        let intake = if setup.intake { self.add_intake(role, &name, number)? } else { Vec::new() };
        let settings: Vec<(&str, &str)> = self
            .settings
            .iter()
            .chain(own)
            .chain(&instance)
            .chain(&intake)
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let variables: Vec<(&str, &str)> =
            setup.environment.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let service = Service::start_with(role, &settings, &variables);
        let mut listeners = Vec::new();
        for (of, address) in public {
            if of == "command" {
                let proxy = Proxy::start(address).map_err(|error| error.to_string())?;
                self.links.insert(format!("client-{name}"), proxy);
            }
            listeners.push((of, address));
        }
        self.nodes.push(Node::new(name, role, service, setup.environment.clone(), admin, listeners));
        Ok(())
    }

    /// Waits until every node is ready.
    ///
    /// # Errors
    /// The first node that is not ready in time, with the end of its log.
    pub fn wait_ready(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + self.ready;
        for index in 0..self.nodes.len() {
            let admin = self.nodes[index].admin;
            let is_ready = || http_get(admin, "/readyz").is_ok_and(|answer| answer.status == 200);
            if !wait_until(deadline.saturating_duration_since(Instant::now()), || {
                self.tend();
                is_ready()
            }) {
                let reasons = http_get(admin, "/readyz").map(Response::into_text).unwrap_or_default();
                let node = &mut self.nodes[index];
                let words = node.log_tail();
                return Err(format!("{} is not ready: {reasons}\n{words}", node.name));
            }
        }
        Ok(())
    }

    /// Restarts nodes after unexpected exits.
    pub fn tend(&mut self) {
        self.nodes.iter_mut().for_each(Node::tend);
    }

    /// The instance of this name, as in `processor-1`.
    ///
    /// # Panics
    /// If there is none.
    pub fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.name == name).unwrap_or_else(|| panic!("no node {name}"))
    }

    /// Repairs every link, and thaws and starts every process.
    ///
    /// # Errors
    /// If a server does not start again.
    pub fn repair_all(&mut self) -> Result<(), String> {
        for name in self.links() {
            self.set_link(&name, Link::Whole);
        }
        for node in &mut self.nodes {
            node.thaw();
            node.start();
        }
        Ok(())
    }

    /// Names of all links: `client-command-1`, `kafka-processor-2`, `redis-query`, `postgres-materializer`.
    pub fn links(&self) -> Vec<String> {
        let kafka = self.nodes.iter().filter(|_| self.brokers.is_some()).map(|node| format!("kafka-{}", node.name));
        self.links.keys().cloned().chain(kafka.filter(|name| !name.contains("query"))).collect()
    }

    /// Sets the state of a link.
    pub fn set_link(&self, name: &str, to: Link) {
        if let Some(proxy) = self.links.get(name) {
            proxy.set(to);
        } else if let (Some(brokers), Some(node)) = (&self.brokers, name.strip_prefix("kafka-")) {
            brokers.set(node, to);
        }
    }

    /// How often a link's fault took effect.
    pub fn effects(&self, name: &str) -> u64 {
        match (self.links.get(name), &self.brokers, name.strip_prefix("kafka-")) {
            (Some(proxy), ..) => proxy.effects(),
            (None, Some(brokers), Some(node)) => brokers.effects(node),
            _ => 0,
        }
    }

    /// Connects a store's link to another server.
    pub fn redirect(&self, name: &str, server: SocketAddr) {
        if let Some(proxy) = self.links.get(name) {
            proxy.redirect(server);
        }
    }

    /// The addresses for events, behind the clients' links.
    pub fn commands(&self) -> Vec<SocketAddr> {
        self.links.iter().filter(|(name, _)| name.starts_with("client-")).map(|(_, proxy)| proxy.address()).collect()
    }

    /// The addresses of the query services.
    pub fn queries(&self) -> Vec<SocketAddr> {
        self.nodes.iter().flat_map(|node| &node.listeners).filter(|(of, _)| *of == "query").map(|(_, a)| *a).collect()
    }

    /// The admin listeners, by node.
    pub fn admins(&self) -> Vec<(String, SocketAddr)> {
        self.nodes.iter().map(|node| (node.name.clone(), node.admin)).collect()
    }

    /// Bootstrap brokers without a proxy.
    pub fn brokers(&self) -> String {
        self.brokers.as_ref().map(Brokers::direct).unwrap_or_default()
    }

    /// The prefix of topics, groups and keys.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// PostgreSQL's schema.
    pub fn schema(&self) -> String {
        self.prefix.trim_end_matches('.').replace(['-', '.'], "_")
    }

    /// The embedded engine's directory.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }
}

/// Host and port of a URL.
pub(crate) fn address_of(url: &str) -> Result<SocketAddr, String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    host.parse().map_err(|_| format!("no address in {url}"))
}
