//! One running `millrace up` per test, and the tools run against it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use millrace_testkit::{Response, Service, free_port, http, http_get, millrace_bin};
use tempfile::TempDir;

/// Timeout of every wait.
pub(crate) const WITHIN: Duration = Duration::from_mins(1);

/// A running `millrace up` on the embedded engine.
pub(crate) struct Up {
    pub(crate) service: Service,
    pub(crate) command: SocketAddr,
    pub(crate) query: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) directory: TempDir,
    settings: Vec<(&'static str, String)>,
}

impl Up {
    /// Starts one and waits until it is ready.
    pub(crate) fn start() -> Self {
        Self::with(&[])
    }

    /// Starts one with settings of a test's own.
    pub(crate) fn with(more: &[(&'static str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = settings(directory.path());
        settings.extend(more.iter().map(|(key, value)| (*key, (*value).to_owned())));
        let given: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let mut service = Service::start("up", &given);
        let address = |key| settings.iter().find(|(name, _)| *name == key).unwrap().1.parse().unwrap();
        let (command, query): (SocketAddr, SocketAddr) = (address("command.listen"), address("query.listen"));
        let admin = address("command.admin");
        let encrypted = settings.iter().any(|(key, _)| *key == "tls.certificate_file");
        service.wait_ready(if encrypted { admin } else { command });
        Self { service, command, query, admin, directory, settings }
    }

    /// Number of events in the log.
    pub(crate) fn stored(&self) -> u64 {
        ends(&self.tool(&["topics", "--json"])).iter().sum()
    }

    /// Its settings, with others.
    pub(crate) fn settings_with<'a>(&'a self, more: &[(&'static str, &'a str)]) -> Vec<(&'static str, &'a str)> {
        let own = self.settings.iter().map(|(key, value)| (*key, value.as_str()));
        own.filter(|(key, _)| more.iter().all(|(other, _)| other != key)).chain(more.iter().copied()).collect()
    }

    /// Its settings as arguments, for tools that are to meet it.
    pub(crate) fn arguments(&self) -> Vec<String> {
        self.settings.iter().flat_map(|(key, value)| ["--set".to_owned(), format!("{key}={value}")]).collect()
    }

    /// Runs a tool with its settings.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Output {
        tool(arguments).args(self.arguments()).output().unwrap()
    }

    pub(crate) fn post(&self, target: &str) -> Response {
        http(self.command, "POST", target, &[], "").unwrap()
    }

    /// The value of a series; 0 if there is none.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        metric(self.admin, series)
    }

    pub(crate) fn metric_if_any(&self, series: &str) -> Option<u64> {
        metric_if_any(self.admin, series)
    }

    /// The value of a counter of the processor.
    pub(crate) fn processed(&self, what: &str) -> u64 {
        self.metric(&format!("millrace_processor_{what}_total"))
    }

    /// The three lines of an hour.
    pub(crate) fn lines(&self, timestamp: u64) -> String {
        http_get(self.query, &format!("/analytics?timestamp={timestamp}")).unwrap().into_text()
    }
}

/// Settings for a directory, on free ports.
pub(crate) fn settings(directory: &Path) -> Vec<(&'static str, String)> {
    let port = || format!("127.0.0.1:{}", free_port());
    vec![
        ("embedded.directory", directory.join("data").display().to_string()),
        // A test must not fail because the disk of a small machine is nearly full.
        ("embedded.min_free_disk", "1MiB".into()),
        ("command.listen", port()),
        ("command.admin", port()),
        ("query.listen", port()),
    ]
}

/// The end of each partition of the topic of events, from `topics --json`; empty after a failure.
pub(crate) fn ends(output: &Output) -> Vec<u64> {
    let topics: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let partitions = topics[0]["partitions"].as_array().cloned().unwrap_or_default();
    partitions.iter().filter_map(|partition| partition["end"].as_u64()).collect()
}

/// The value of a series, `name` or `name{label="value"}`, at an admin listener; 0 if there is none.
pub(crate) fn metric(admin: SocketAddr, series: &str) -> u64 {
    metric_if_any(admin, series).unwrap_or_default()
}

fn metric_if_any(admin: SocketAddr, series: &str) -> Option<u64> {
    let body = http_get(admin, "/metrics").ok()?.into_text();
    body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// `millrace` with arguments, without inherited `MILLRACE_*`.
pub(crate) fn tool(arguments: &[&str]) -> Command {
    let mut command = Command::new(millrace_bin());
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MILLRACE_") {
            command.env_remove(name);
        }
    }
    command
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
