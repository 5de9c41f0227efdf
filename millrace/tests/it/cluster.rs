//! The services as separate processes, on real Kafka, Redis and PostgreSQL, with names that are unique to a test.

use std::net::SocketAddr;
use std::process::{Child, Output, Stdio};

use millrace_testkit::{Response, Service, free_port, http_get, unique, wait_until};

use crate::run::{WITHIN, tool};

pub(crate) const ROLES: [&str; 5] = ["command", "processor", "materializer", "query", "delivery"];

/// Instances of each service.
pub(crate) struct Cluster {
    settings: Vec<(&'static str, String)>,
    nodes: Vec<Node>,
}

pub(crate) struct Node {
    pub(crate) role: &'static str,
    pub(crate) service: Service,
    pub(crate) admin: SocketAddr,
    public: Option<SocketAddr>,
}

impl Cluster {
    /// On the servers all tests share; `None` where one is missing.
    pub(crate) fn on_shared_servers(suite: &str, instances: usize) -> Option<Self> {
        Self::start(millrace_testkit::kafka(suite)?, suite, instances)
    }

    /// On a broker of the test's own.
    pub(crate) fn start(brokers: &str, suite: &str, instances: usize) -> Option<Self> {
        Self::with(brokers, suite, instances, &[])
    }

    /// With further settings. Every process has a name, which they may take from it.
    pub(crate) fn with(brokers: &str, suite: &str, instances: usize, more: &[(&'static str, &str)]) -> Option<Self> {
        let own = unique("e2e");
        let mut settings = vec![
            ("engine", "kafka".to_owned()),
            ("prefix", format!("{own}.")),
            ("kafka.brokers", brokers.to_owned()),
            ("kafka.session_timeout", "6s".to_owned()),
            ("kafka.transaction_timeout", "6s".to_owned()),
            ("redis.url", millrace_testkit::redis(suite)?.to_owned()),
            ("postgres.url", millrace_testkit::postgres(suite)?.to_owned()),
            ("postgres.schema", own.replace('-', "_")),
            ("postgres.max_connections", "4".to_owned()),
        ];
        settings.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let mut cluster = Self { settings, nodes: Vec::new() };
        for role in ROLES {
            for _ in 0..instances {
                cluster.add(role);
            }
        }
        cluster.nodes.iter_mut().for_each(Node::wait_ready);
        Some(cluster)
    }

    /// Starts one more instance of a role.
    pub(crate) fn add(&mut self, role: &'static str) -> &mut Node {
        self.add_with(role, &[])
    }

    /// With settings of its own.
    pub(crate) fn add_with(&mut self, role: &'static str, more: &[(&str, String)]) -> &mut Node {
        let port = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let admin = port();
        let public = ["command", "query", "delivery"].contains(&role).then(port);
        let mut own = vec![(format!("{role}.admin"), admin.to_string())];
        own.extend(public.map(|public| (format!("{role}.listen"), public.to_string())));
        let shared = self.settings.iter().map(|(key, value)| (*key, value.as_str()));
        // A name keeps a process that was killed its partitions.
        let name = format!("{role}-{}", admin.port());
        let settings: Vec<(&str, &str)> = std::iter::once(("instance", name.as_str()))
            .chain(shared)
            .chain(own.iter().map(|(key, value)| (key.as_str(), value.as_str())))
            .chain(more.iter().map(|(key, value)| (*key, value.as_str())))
            .collect();
        let service = Service::start(role, &settings);
        self.nodes.push(Node { role, service, admin, public });
        self.nodes.last_mut().expect("pushed a moment ago")
    }

    /// Has the first instance of a role end in order, for good.
    pub(crate) fn remove(&mut self, role: &str) {
        let first = self.nodes.iter().position(|node| node.role == role).unwrap();
        let status = self.nodes.remove(first).service.shut_down(WITHIN);
        assert!(status.is_some_and(|status| status.success()), "{role}: {status:?}");
    }

    pub(crate) fn node(&mut self, role: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.role == role).unwrap()
    }

    /// All instances of a role.
    pub(crate) fn all(&self, role: &str) -> impl Iterator<Item = &Node> {
        self.nodes.iter().filter(move |node| node.role == role)
    }

    /// A tool with the cluster's settings.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Output {
        let settings = self.settings.iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]);
        tool(arguments).args(settings).output().unwrap()
    }

    pub(crate) fn setting(&self, key: &str) -> &str {
        &self.settings.iter().find(|(name, _)| *name == key).unwrap().1
    }

    pub(crate) fn publics(&self, role: &str) -> Vec<SocketAddr> {
        self.all(role).filter_map(|node| node.public).collect()
    }

    /// Starts a load on every command service; its counts are read from the last query service.
    pub(crate) fn load(&self, arguments: &[&str]) -> Child {
        let mut load = tool(&["load", "--json"]);
        for command in self.publics("command") {
            load.args(["--command", &format!("http://{command}")]);
        }
        let query = *self.publics("query").last().unwrap();
        load.args(["--query", &format!("http://{query}")]).args(arguments);
        load.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }
}

impl Node {
    pub(crate) fn wait_ready(&mut self) {
        self.service.wait_ready(self.admin);
    }

    /// Waits until a counter or gauge of this process grows past where it is now: it is in the middle of its work.
    pub(crate) fn wait_busy(&self, metric: &str) {
        let before = self.total(metric);
        assert!(wait_until(WITHIN, || self.total(metric) > before), "{metric} of {} never grows", self.role);
    }

    /// The sum of all series of a counter or gauge.
    pub(crate) fn total(&self, metric: &str) -> u64 {
        let body = http_get(self.admin, "/metrics").map(Response::into_text).unwrap_or_default();
        let values = body.lines().filter(|line| line.starts_with(metric));
        values.filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok()).sum()
    }
}

/// Asserts that every number of a load is right.
pub(crate) fn assert_right(load: Child, events: u64) {
    let output = load.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: serde_json::Value = serde_json::from_str(text.trim()).unwrap_or_else(|_| panic!("{text}"));
    assert!(output.status.success() && report["ok"] == true, "{text}");
    assert_eq!(report["not_sent"], 0, "{text}");
    let sum = ["acknowledged", "refused", "unknown"].iter().map(|key| report[key].as_u64().unwrap()).sum::<u64>();
    assert_eq!(sum, events, "{text}");
    assert!(report["acknowledged"].as_u64().unwrap() > events / 2, "{text}");
}
