//! The metrics of all processes, accumulated over their restarts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use millrace_testkit::http_get;

use crate::lock;

const EVERY: Duration = Duration::from_millis(500);

/// Scrapes every process periodically until it is dropped.
#[derive(Debug)]
pub struct Meter {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    nodes: Mutex<Vec<(String, SocketAddr)>>,
    series: Mutex<BTreeMap<String, Series>>,
    stop: AtomicBool,
}

/// One line of `/metrics` of one node.
#[derive(Debug, Clone, Copy, Default)]
struct Series {
    /// Of processes that have ended.
    before: f64,
    now: f64,
}

impl Meter {
    /// Starts to scrape these admin listeners.
    pub fn start(nodes: Vec<(String, SocketAddr)>) -> Self {
        let shared =
            Arc::new(Shared { nodes: Mutex::new(nodes), series: Mutex::default(), stop: AtomicBool::new(false) });
        let own = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while !own.stop.load(Ordering::Relaxed) {
                own.scrape();
                thread::sleep(EVERY);
            }
        });
        Self { shared, thread: Some(thread) }
    }

    /// Replaces the admin listeners to scrape.
    pub fn set_nodes(&self, nodes: Vec<(String, SocketAddr)>) {
        *lock(&self.shared.nodes) = nodes;
    }

    /// Scrapes once, now.
    pub fn scrape(&self) {
        self.shared.scrape();
    }

    /// The sum of all series of this name whose labels contain `label`, over all nodes and their restarts, without what a
    /// killed process counted after its last scrape.
    pub fn total(&self, name: &str, label: &str) -> u64 {
        self.sum(name, label, |series| series.before + series.now)
    }

    /// As [`Self::total`], of the running processes only, for gauges.
    pub fn now(&self, name: &str, label: &str) -> u64 {
        self.sum(name, label, |series| series.now)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of events")]
    fn sum(&self, name: &str, label: &str, value: impl Fn(Series) -> f64) -> u64 {
        let series = lock(&self.shared.series);
        let named = series.iter().filter(|(key, _)| {
            let line = key.split_once(' ').map_or("", |(_, line)| line);
            line.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{')) && line.contains(label)
        });
        named.map(|(_, series)| value(*series)).sum::<f64>() as u64
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn scrape(&self) {
        let nodes = lock(&self.nodes).clone();
        for (node, address) in nodes {
            let Ok(answer) = http_get(address, "/metrics") else { continue };
            let mut all = lock(&self.series);
            for line in answer.text().lines().filter(|line| !line.starts_with('#')) {
                let Some((key, value)) = line.rsplit_once(' ') else { continue };
                let Ok(value) = value.parse::<f64>() else { continue };
                let series = all.entry(format!("{node} {key}")).or_default();
                if value < series.now && key.contains("_total") {
                    series.before += series.now;
                }
                series.now = value;
            }
        }
    }
}
