//! Clients of one topic, and the oracle of its messages: what publishers and consumers were answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use millrace_testkit::http_get;
use serde_json::{Value, json};

use crate::client::{Attempt, Client};
use crate::lock;
use crate::oracle::{Verdict, judge};
use crate::report::Part;

/// The topic and its subscription.
pub(crate) const TOPIC: &str = "/v1/topics/faults";
pub(crate) const SUBSCRIPTION: &str = "/v1/topics/faults/subscriptions/workers";
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");
/// The pause of a publisher between two messages unless it has another one, and of everybody before a request is sent again.
const PAUSE: Duration = Duration::from_millis(20);
/// Longer than a publish waits at its coordinator.
const TIMEOUT: Duration = Duration::from_secs(20);
/// The maximum number of differences in a report.
const MAX_DIFFERENCES: usize = 100;

/// What the clients were answered.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// By number: the id of a message whose publish was acknowledged; `None` if the outcome is unknown.
    published: BTreeMap<u64, Option<String>>,
    /// Publishes of unknown outcome, repeats included.
    pub(crate) unknown: u64,
    /// By number: the ids under which a message was handed out.
    received: BTreeMap<u64, BTreeSet<String>>,
    /// How often messages were handed out.
    deliveries: u64,
    /// By offset: when the acknowledgement of a message was answered.
    acknowledged: BTreeMap<u64, Instant>,
    /// How often each answer came.
    tally: BTreeMap<String, u64>,
    differences: Vec<String>,
}

/// How messages are published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Publishing {
    /// The pause of a publisher between two messages.
    pub(crate) pause: Duration,
    /// Headers of the message of a number, beside its content type and idempotency key.
    pub(crate) headers: fn(u64) -> Vec<(&'static str, String)>,
}

/// Publishers and consumers: what they share.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) commands: Vec<SocketAddr>,
    publishing: Publishing,
    pub(crate) answers: Mutex<Answers>,
    next: AtomicU64,
    /// No new messages.
    pub(crate) ending: AtomicBool,
    /// No further requests.
    pub(crate) ended: AtomicBool,
}

/// A client of all command services: the next one after each request that was not processed for certain.
pub(crate) struct Caller<'a> {
    clients: &'a Clients,
    connections: Vec<Client>,
    at: usize,
}

impl<'a> Caller<'a> {
    pub(crate) fn new(clients: &'a Clients, index: usize) -> Self {
        let connections: Vec<Client> = clients.commands.iter().map(|address| Client::new(*address, TIMEOUT)).collect();
        let at = index % connections.len();
        Self { clients, connections, at }
    }

    /// Sends a request once and counts its answer.
    pub(crate) fn call(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> (Verdict, Attempt) {
        let sent = self.connections[self.at].send_with(method, target, headers, body);
        let (verdict, word) = judge(&sent);
        *lock(&self.clients.answers).tally.entry(format!("{method} {word}")).or_default() += 1;
        if matches!(verdict, Verdict::Later | Verdict::Unknown) {
            self.at = (self.at + 1) % self.connections.len();
            thread::sleep(PAUSE);
        }
        (verdict, sent)
    }

    /// Pulls once and records what was handed out: offset and token of each message.
    pub(crate) fn pull(&mut self, lease: &str) -> (Verdict, Attempt, Vec<(u64, String)>) {
        let begun = Instant::now();
        let target = format!("{SUBSCRIPTION}/messages?max=20&wait=1s{lease}");
        let (verdict, sent) = self.call("GET", &target, &[], "");
        let mut answers = lock(&self.clients.answers);
        if verdict == Verdict::Refused {
            answers.differ(format!("a pull was refused: {sent:?}"));
        }
        let lines = if verdict == Verdict::Acknowledged { text(&sent) } else { "" };
        let received = lines.lines().filter_map(|line| answers.receive(begun, line)).collect();
        drop(answers);
        (verdict, sent, received)
    }
}

fn text(sent: &Attempt) -> &str {
    if let Attempt::Response { body, .. } = sent { body } else { "" }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

impl Answers {
    fn differ(&mut self, what: String) {
        if self.differences.len() < MAX_DIFFERENCES {
            self.differences.push(what);
        }
    }

    fn publish(&mut self, number: u64, verdict: Verdict, sent: &Attempt) {
        match verdict {
            Verdict::Acknowledged => {
                let id = parse(text(sent))["id"].as_str().unwrap_or_default().to_owned();
                self.published.insert(number, Some(id));
            }
            Verdict::Unknown => {
                self.unknown += 1;
                self.published.entry(number).or_insert(None);
            }
            Verdict::Refused => self.differ(format!("message {number} was refused: {sent:?}")),
            Verdict::Later => {}
        }
    }

    /// Records a line of a pull that began at this time.
    fn receive(&mut self, begun: Instant, line: &str) -> Option<(u64, String)> {
        let message = parse(line);
        let number = message["body"]["n"].as_u64();
        let (Some(number), Some(offset), Some(id), Some(token)) =
            (number, message["offset"].as_u64(), message["id"].as_str(), message["token"].as_str())
        else {
            self.differ(format!("nobody published this message: {line}"));
            return None;
        };
        self.deliveries += 1;
        self.received.entry(number).or_default().insert(id.to_owned());
        // A pull that was under way at that time may have been answered before.
        if self.acknowledged.get(&offset).is_some_and(|answered| *answered < begun) {
            self.differ(format!("message {number} (offset {offset}) was handed out after its acknowledgement"));
        }
        Some((offset, token.to_owned()))
    }

    /// Compares what was published with what was handed out.
    pub(crate) fn compare(&mut self, part: &mut Part) {
        let mut found = Vec::new();
        for (number, id) in &self.published {
            match (id, self.received.get(number)) {
                (Some(id), None) => found.push(format!("message {number}, acknowledged as {id}, was never handed out")),
                (Some(id), Some(ids)) if ids.len() > 1 || !ids.contains(id) => {
                    found.push(format!("message {number}, acknowledged as {id}, was handed out as {ids:?}"));
                }
                (None, Some(ids)) if ids.len() > 1 => {
                    found.push(format!("message {number}, of unknown outcome, was handed out as {ids:?}"));
                }
                _ => {}
            }
        }
        for number in self.received.keys().filter(|number| !self.published.contains_key(number)) {
            found.push(format!("message {number} was handed out, but each publish of it was refused"));
        }
        let (distinct, settled) = (self.received.len(), self.acknowledged.len());
        self.report(found, part);
        part.fact(format!("{distinct} messages handed out, {} times; {settled} acknowledged", self.deliveries));
    }

    /// By number: the id of a message whose publish was acknowledged; `None` if the outcome is unknown.
    pub(crate) fn published(&self) -> &BTreeMap<u64, Option<String>> {
        &self.published
    }

    /// Adds what was found, beside what the clients noticed, and their answers to a report.
    pub(crate) fn report(&mut self, mut found: Vec<String>, part: &mut Part) {
        found.append(&mut self.differences);
        if found.len() > MAX_DIFFERENCES {
            let further = found.len() - MAX_DIFFERENCES;
            found.truncate(MAX_DIFFERENCES);
            found.push(format!("{further} further differences of the topic"));
        }
        part.differences.append(&mut found);
        let known = self.published.values().flatten().count() as u64;
        part.sometimes("messages acknowledged to their publishers", known);
        let tally: Vec<String> = self.tally.iter().map(|(word, count)| format!("{word} {count}")).collect();
        part.fact(format!("answers to the clients of the topic: {}", tally.join(", ")));
    }
}

impl Clients {
    /// Clients of these command services.
    pub(crate) fn new(commands: Vec<SocketAddr>) -> Self {
        Self::publishing(commands, Publishing { pause: PAUSE, headers: |_| Vec::new() })
    }

    /// Clients of these command services that publish in this way.
    pub(crate) fn publishing(commands: Vec<SocketAddr>, publishing: Publishing) -> Self {
        let (ending, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { commands, publishing, answers: Mutex::default(), next: AtomicU64::new(0), ending, ended }
    }

    /// Publishes numbered messages, each until its outcome is known where a repeat is safe.
    pub(crate) fn publish(&self, index: usize) {
        let mut caller = Caller::new(self, index);
        while !self.ending.load(Ordering::Relaxed) {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let (body, key) = (json!({ "n": number }).to_string(), format!("k{number}"));
            // Every fourth has no key: a command service appends it itself, and an unknown outcome stays unknown.
            let keyed = number % 4 != 3;
            let more = (self.publishing.headers)(number);
            let mut headers = vec![JSON];
            headers.extend(more.iter().map(|(name, value)| (*name, value.as_str())));
            if keyed {
                headers.push(("idempotency-key", key.as_str()));
            }
            loop {
                let (verdict, sent) = caller.call("POST", &format!("{TOPIC}/messages"), &headers, &body);
                lock(&self.answers).publish(number, verdict, &sent);
                let again = verdict == Verdict::Later || verdict == Verdict::Unknown && keyed;
                if !again || self.ended.load(Ordering::Relaxed) {
                    break;
                }
            }
            thread::sleep(self.publishing.pause);
        }
    }

    /// Pulls under leases, and acknowledges everything.
    pub(crate) fn consume(&self, index: usize) {
        let mut caller = Caller::new(self, index);
        while !self.ended.load(Ordering::Relaxed) {
            let (_, _, received) = caller.pull("&lease=5s");
            if !received.is_empty() {
                self.acknowledge(&mut caller, &received);
            }
        }
    }

    /// Acknowledges until that is answered: a token outlives the coordinator that made it.
    fn acknowledge(&self, caller: &mut Caller<'_>, received: &[(u64, String)]) {
        let tokens: Vec<&str> = received.iter().map(|(_, token)| token.as_str()).collect();
        let body = json!({ "tokens": tokens }).to_string();
        while !self.ended.load(Ordering::Relaxed) {
            let (verdict, sent) = caller.call("POST", &format!("{SUBSCRIPTION}:ack"), &[JSON], &body);
            if matches!(verdict, Verdict::Later | Verdict::Unknown) {
                continue;
            }
            let mut answers = lock(&self.answers);
            if verdict == Verdict::Acknowledged && parse(text(&sent))["stale"] == json!(0) {
                let answered = Instant::now();
                for (offset, _) in received {
                    answers.acknowledged.entry(*offset).or_insert(answered);
                }
            } else {
                answers.differ(format!("an acknowledgement of {} messages: {sent:?}", received.len()));
            }
            return;
        }
    }

    /// Messages whose acknowledgement was answered.
    pub(crate) fn settled(&self) -> usize {
        lock(&self.answers).acknowledged.len()
    }

    /// Messages that the subscription has not settled; `None` while no coordinator answers.
    pub(crate) fn backlog(&self) -> Option<u64> {
        self.get(SUBSCRIPTION)?["backlog"].as_u64()
    }

    /// What the first command service answers that returns 200.
    pub(crate) fn get(&self, target: &str) -> Option<Value> {
        let mut answers = self.commands.iter().filter_map(|address| http_get(*address, target).ok());
        answers.find(|response| response.status == 200).map(|response| response.json())
    }
}
