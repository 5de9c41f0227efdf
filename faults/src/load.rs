//! The load: connections that send the run's events at a rate, and retry where a retry is safe.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::client::{Attempt, Client};
use crate::event::{Event, Shape};
use crate::lock;
use crate::oracle::{Oracle, Verdict, judge};

/// The pause before an event is sent again.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest Retry-After that the load waits.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(2);
/// How far a delayed load may be behind its schedule; it sends that much faster for a moment.
const BEHIND: Duration = Duration::from_millis(200);

/// Settings of a load.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Events per second.
    pub rate: u64,
    /// Connections at the same time.
    pub connections: usize,
    /// The longest wait for a response.
    pub timeout: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { rate: 2_000, connections: 20, timeout: Duration::from_secs(8) }
    }
}

/// What the loads of one run share: the events, the oracle and the next number.
#[derive(Debug)]
pub struct Run {
    /// The parameters of the events.
    pub shape: Shape,
    /// The outcomes of all sends.
    pub oracle: Oracle,
    /// The addresses of the command services.
    pub commands: Vec<SocketAddr>,
    next: AtomicU64,
    /// The latencies of acknowledged sends in µs since the last [`Run::p99_ms`].
    latencies: Mutex<Vec<u64>>,
}

/// A running load. Dropping it stops it without waiting for its retries.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    run: Arc<Run>,
    pace: Pace,
    due: Mutex<Instant>,
    /// No new events.
    ending: AtomicBool,
    /// No further retries either.
    given_up: AtomicBool,
}

impl Run {
    /// A run of this shape against these command services.
    pub fn new(shape: Shape, commands: Vec<SocketAddr>) -> Arc<Self> {
        Arc::new(Self {
            shape,
            oracle: Oracle::default(),
            commands,
            next: AtomicU64::new(0),
            latencies: Mutex::default(),
        })
    }

    /// Takes the next event.
    pub fn next_event(&self) -> Event {
        self.shape.event(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Takes the next event that carries an id.
    pub fn next_with_id(&self) -> Event {
        loop {
            let event = self.next_event();
            if event.id.is_some() || !self.shape.ids {
                return event;
            }
        }
    }

    /// Sends an event once and records the outcome.
    pub fn send(&self, client: &mut Client, event: &Event) -> (Verdict, Attempt) {
        let begun = Instant::now();
        let sent = client.send("POST", &event.target());
        let (verdict, word) = judge(&sent);
        if verdict == Verdict::Acknowledged {
            let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
            lock(&self.latencies).push(took);
        }
        self.oracle.note(event.number, verdict, word);
        (verdict, sent)
    }

    /// The 99th percentile of the acknowledged sends since the last call, in ms; and their number.
    pub fn p99_ms(&self) -> (u64, u64) {
        let mut all = std::mem::take(&mut *lock(&self.latencies));
        all.sort_unstable();
        let at = all.len() * 99 / 100;
        (all.get(at).copied().unwrap_or_default() / 1_000, all.len() as u64)
    }

    /// Sends one event until a service acknowledges it.
    ///
    /// # Errors
    /// If none does within `within`.
    pub fn send_one(&self, within: Duration) -> Result<Event, String> {
        let (event, deadline) = (self.next_event(), Instant::now() + within);
        let mut last = String::new();
        for address in self.commands.iter().cycle() {
            let mut client = Client::new(*address, within);
            let (verdict, sent) = self.send(&mut client, &event);
            match verdict {
                Verdict::Acknowledged => return Ok(event),
                Verdict::Unknown if event.id.is_none() => return Err(format!("one event: {sent:?}")),
                Verdict::Refused => return Err(format!("one event was refused: {sent:?}")),
                Verdict::Later | Verdict::Unknown => last = format!("{sent:?}"),
            }
            if Instant::now() > deadline {
                break;
            }
            thread::sleep(PAUSE);
        }
        Err(format!("no event was acknowledged within {within:?}: {last}"))
    }
}

impl Load {
    /// Starts sending.
    pub fn start(run: &Arc<Run>, pace: Pace) -> Self {
        let shared = Arc::new(Shared {
            run: Arc::clone(run),
            pace,
            due: Mutex::new(Instant::now()),
            ending: AtomicBool::new(false),
            given_up: AtomicBool::new(false),
        });
        let threads = (0..pace.connections)
            .map(|index| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || shared.connection(index))
            })
            .collect();
        Self { shared, threads }
    }

    /// Sends no new events and waits for the outcomes of those in flight; after `within`, gives up their retries.
    pub fn finish(mut self, within: Duration) {
        self.shared.ending.store(true, Ordering::Relaxed);
        let deadline = Instant::now() + within;
        while self.threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        self.shared.given_up.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::Relaxed);
        self.shared.given_up.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn connection(&self, index: usize) {
        let services = self.run.commands.len();
        let mut clients: Vec<Client> =
            self.run.commands.iter().map(|address| Client::new(*address, self.pace.timeout)).collect();
        while !self.ending.load(Ordering::Relaxed) {
            self.wait_for_turn();
            let event = self.run.next_event();
            let mut at = index % services;
            match self.settle(&mut clients, &mut at, &event) {
                Verdict::Acknowledged if event.twice => {
                    at = (at + 1) % services;
                    self.settle(&mut clients, &mut at, &event);
                }
                // Behind a proxy, an unreachable service has this outcome too: wait rather than use up the events.
                Verdict::Unknown => thread::sleep(PAUSE),
                _ => {}
            }
        }
    }

    fn wait_for_turn(&self) {
        let now = Instant::now();
        let due = {
            let mut due = lock(&self.due);
            *due = (*due).max(now.checked_sub(BEHIND).unwrap_or(now)) + Duration::from_secs(1) / self.rate();
            *due
        };
        thread::sleep(due.saturating_duration_since(now));
    }

    fn rate(&self) -> u32 {
        u32::try_from(self.pace.rate.max(1)).unwrap_or(u32::MAX)
    }

    /// Sends an event until it is acknowledged or a retry is not safe.
    fn settle(&self, clients: &mut [Client], at: &mut usize, event: &Event) -> Verdict {
        loop {
            let (verdict, sent) = self.run.send(&mut clients[*at], event);
            let again = match verdict {
                Verdict::Later => true,
                Verdict::Unknown => event.id.is_some(),
                Verdict::Acknowledged | Verdict::Refused => false,
            };
            if !again || self.given_up.load(Ordering::Relaxed) {
                return verdict;
            }
            *at = (*at + 1) % clients.len();
            let pause = match sent {
                Attempt::Response { retry_after: Some(seconds), .. } => {
                    Duration::from_secs(seconds).min(MAX_RETRY_AFTER)
                }
                _ => PAUSE,
            };
            thread::sleep(pause);
        }
    }
}
