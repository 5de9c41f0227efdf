//! Reader sessions: they read hours continuously and check that no count falls.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use millrace_testkit::{Response, http_get};

use crate::event::Shape;
use crate::fold::Counts;
use crate::lock;

const EVERY: Duration = Duration::from_millis(40);
/// The maximum number of falls in a report.
const MAX_FALLS: usize = 20;

/// The results of the reader sessions.
#[derive(Debug, Clone, Default)]
pub struct ReadStats {
    /// Responses with counts.
    pub reads: u64,
    /// Responses with the code `rebuilding`.
    pub rebuilding: u64,
    /// Other responses, and failed requests.
    pub failed: u64,
    /// Counts that fell between two responses of the same read model.
    pub falls: Vec<String>,
    /// Counts that fell because another read model, which lags, served the response.
    pub behind: u64,
    /// The longest time without counts of any hour, in ms.
    pub longest_gap_ms: u64,
}

/// Running sessions, one for each query service.
#[derive(Debug)]
pub struct Watcher {
    stats: Arc<Mutex<ReadStats>>,
    incarnation: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Watcher {
    /// Starts to read from these services.
    pub fn start(queries: &[SocketAddr], shape: &Shape) -> Self {
        let (stats, stop) = (Arc::new(Mutex::new(ReadStats::default())), Arc::new(AtomicBool::new(false)));
        let incarnation = Arc::new(AtomicU64::new(0));
        let base = shape.base_hour;
        let hours = [base, base - 1, base, base - 5, base, base - 23, base, base - 100];
        let threads = queries
            .iter()
            .map(|&address| {
                let (stats, stop) = (Arc::clone(&stats), Arc::clone(&stop));
                let incarnation = Arc::clone(&incarnation);
                thread::spawn(move || {
                    let mut session = Session { address, last: HashMap::new(), numbers: Instant::now() };
                    let mut of = 0;
                    for &hour in hours.iter().cycle() {
                        if stop.load(Ordering::Relaxed) {
                            break;
                        }
                        let now = incarnation.load(Ordering::Relaxed);
                        if std::mem::replace(&mut of, now) != now {
                            session.last.clear();
                        }
                        session.read(hour, &stats);
                        thread::sleep(EVERY);
                    }
                })
            })
            .collect();
        Self { stats, incarnation, stop, threads }
    }

    /// Starts new sessions: a store has older data now and may serve it.
    pub fn new_incarnation(&self) {
        self.incarnation.fetch_add(1, Ordering::Relaxed);
    }

    /// The results so far.
    pub fn stats(&self) -> ReadStats {
        lock(&self.stats).clone()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

struct Session {
    address: SocketAddr,
    /// By hour: the last counts, and their read model.
    last: HashMap<u64, (Counts, String)>,
    numbers: Instant,
}

impl Session {
    fn read(&mut self, hour: u64, stats: &Mutex<ReadStats>) {
        let answer = http_get(self.address, &target(hour));
        let mut stats = lock(stats);
        let read = match answer {
            Ok(answer) if answer.status == 200 => counts(&answer).map(|counts| (counts, answer)),
            Ok(answer) if answer.text().contains("rebuilding") => {
                stats.rebuilding += 1;
                return;
            }
            _ => None,
        };
        let Some((counts, answer)) = read else {
            stats.failed += 1;
            return;
        };
        stats.reads += 1;
        let gap = u64::try_from(self.numbers.elapsed().as_millis()).unwrap_or(u64::MAX);
        stats.longest_gap_ms = stats.longest_gap_ms.max(gap);
        self.numbers = Instant::now();
        let tier = answer.header("millrace-tier").unwrap_or("none").to_owned();
        if let Some((before, from)) = self.last.get(&hour)
            && (counts.users < before.users || counts.clicks < before.clicks || counts.impressions < before.impressions)
        {
            if *from == tier && stats.falls.len() < MAX_FALLS {
                let fall = format!("{}: hour {hour} fell from {before} to {counts} ({tier})", self.address);
                stats.falls.push(fall);
            } else if *from != tier {
                stats.behind += 1;
            }
        }
        self.last.insert(hour, (counts, tier));
    }
}

/// The target that reads an hour.
pub(crate) fn target(hour: u64) -> String {
    format!("/analytics?timestamp={}", hour * 3_600_000)
}

/// The counts in a response's three lines.
pub(crate) fn counts(answer: &Response) -> Option<Counts> {
    let mut lines = answer.text().lines();
    let mut number = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(',')?.parse().ok();
    Some(Counts { users: number("unique_users")?, clicks: number("clicks")?, impressions: number("impressions")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_three_lines() {
        let body = b"unique_users,1\nclicks,2\nimpressions,3\n".to_vec();
        let answer = Response { status: 200, headers: Vec::new(), body };
        assert_eq!(counts(&answer), Some(Counts { users: 1, clicks: 2, impressions: 3 }));
    }
}
