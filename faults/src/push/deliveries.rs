//! The oracle of push: every request that reached an endpoint, and what the endpoint made of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::MAX_IN_FLIGHT;
use super::endpoints::{Answer, ENDPOINTS, Endpoint, Question, key, lane};
use super::request::Request;
use super::webhook;
use crate::report::Part;

/// What was answered so shortly before an interruption need not be in the log.
const UNSETTLED: Duration = Duration::from_secs(1);
/// A request may come so much before the end of a rest: clocks are read in milliseconds.
const EARLY_MS: u64 = 10;

/// The requests for one message at one endpoint.
#[derive(Debug)]
struct Sent {
    number: u64,
    /// The highest attempt.
    attempt: u64,
    /// Whether the endpoint took it.
    taken: bool,
    /// The attempt after which it has to rest, and until when, in ms since the epoch.
    rest: Option<(u64, u64)>,
}

/// One message, as a request has it.
struct Message {
    id: String,
    number: u64,
    attempt: u64,
    /// In the body mode `envelope`.
    offset: Option<u64>,
}

/// Every request so far.
#[derive(Debug, Default)]
pub(crate) struct Deliveries {
    /// By endpoint: the key of its signatures.
    keys: BTreeMap<&'static str, Vec<u8>>,
    /// By endpoint and id.
    sent: BTreeMap<&'static str, BTreeMap<String, Sent>>,
    /// By endpoint.
    requests: BTreeMap<&'static str, u64>,
    /// By ordering key, where order is kept: offset and id of the newest message.
    newest: BTreeMap<String, (u64, String)>,
    /// By kind of answer.
    answers: BTreeMap<&'static str, u64>,
    /// Requests of the last second.
    recent: VecDeque<Instant>,
    /// Requests for what had been taken, or in an attempt that had been made.
    repeats: u64,
    /// Most repeats that the interruptions so far explain.
    explained: u64,
    interruptions: u64,
    pub(super) differences: Vec<String>,
}

impl Message {
    fn read(request: &Request) -> Option<Self> {
        let body: Value = serde_json::from_slice(&request.body).ok()?;
        let (offset, number) = (body["offset"].as_u64(), body["n"].as_u64().or_else(|| body["body"]["n"].as_u64()));
        let attempt = request.header("webhook-attempt").parse().ok().filter(|attempt: &u64| *attempt > 0)?;
        Some(Self { id: request.header("webhook-id").to_owned(), number: number?, attempt, offset })
    }
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

impl Deliveries {
    /// Sets the secret of a subscription, as it was shown.
    pub(crate) fn learn(&mut self, endpoint: &Endpoint, secret: &str) -> Result<(), String> {
        let key = webhook::key(secret).ok_or_else(|| format!("{}: {secret:?} is no secret", endpoint.name))?;
        self.keys.insert(endpoint.name, key);
        Ok(())
    }

    /// Requests that reached an endpoint.
    pub(crate) fn requests(&self, endpoint: &str) -> u64 {
        self.requests.get(endpoint).copied().unwrap_or_default()
    }

    /// Requests that reached any endpoint.
    pub(crate) fn all_requests(&self) -> u64 {
        self.requests.values().sum()
    }

    /// Counts an answer of this kind.
    pub(super) fn count(&mut self, kind: &'static str) {
        *self.answers.entry(kind).or_default() += 1;
    }

    /// Something that loses what a process has in flight: this much, and what it was answered just before, may be repeated.
    pub(crate) fn interrupted(&mut self) {
        self.forget_old();
        self.interruptions += 1;
        self.explained += (MAX_IN_FLIGHT + self.recent.len()) as u64;
    }

    fn forget_old(&mut self) {
        while self.recent.front().is_some_and(|at| at.elapsed() > UNSETTLED) {
            self.recent.pop_front();
        }
    }

    /// Records a request, and returns what it is answered with.
    pub(super) fn begin(&mut self, endpoint: &'static Endpoint, request: &Request, ending: bool, back: bool) -> Answer {
        self.forget_old();
        self.recent.push_back(Instant::now());
        let requests = self.requests.entry(endpoint.name).or_default();
        let before = *requests;
        *requests += 1;
        let genuine = self
            .keys
            .get(endpoint.name)
            .map_or(Err("its key is unknown".to_owned()), |key| webhook::verify(key, request));
        if let Err(why) = genuine {
            self.differences.push(format!("a request to {} is not genuine: {why}", endpoint.name));
        }
        let Some(message) = Message::read(request) else {
            let text = String::from_utf8_lossy(&request.body);
            self.differences.push(format!("{} received what nobody published: {text}", endpoint.name));
            return Answer::Status(400);
        };
        self.check(endpoint, request, &message);
        let Message { id, number, attempt, .. } = message;
        let answer = (endpoint.answer)(Question { number, first: attempt == 1, before, ending, back });
        let new = || Sent { number, attempt: 0, taken: false, rest: None };
        let sent = self.sent.entry(endpoint.name).or_default().entry(id).or_insert_with(new);
        if sent.taken || attempt <= sent.attempt {
            self.repeats += 1;
        }
        let now_ms = now_ms();
        // A rest is in the log with the attempt that was answered with it.
        if let Some((after, until_ms)) = sent.rest
            && attempt > after
            && now_ms + EARLY_MS < until_ms
        {
            let early = until_ms - now_ms;
            self.differences.push(format!("{}: message {number} came {early} ms before its rest ended", endpoint.name));
        }
        sent.attempt = sent.attempt.max(attempt);
        if let Answer::Rest { seconds, as_date } = answer {
            let until_ms = now_ms + u64::from(seconds) * 1_000;
            sent.rest = Some((attempt, if as_date { until_ms / 1_000 * 1_000 } else { until_ms }));
        }
        answer
    }

    /// What every request has to be, beside genuine.
    fn check(&mut self, endpoint: &Endpoint, request: &Request, message: &Message) {
        let number = message.number;
        let key = key(number);
        let mut expected =
            vec![("millrace-topic", "faults"), ("millrace-subscription", endpoint.name), ("x-key", key.as_str())];
        if !endpoint.by_key {
            expected.push(("x-attr-lane", lane(number)));
        }
        for (name, value) in expected {
            let found = request.header(name);
            if found != value {
                let text = format!("{}: message {number} has {name} {found:?}, not {value:?}", endpoint.name);
                self.differences.push(text);
            }
        }
        if !endpoint.by_key {
            return;
        }
        let Some(offset) = message.offset else {
            self.differences.push(format!("{}: message {number} has no offset", endpoint.name));
            return;
        };
        if let Some((newest, id)) = self.newest.get(&key) {
            let taken = self.sent.get(endpoint.name).and_then(|sent| sent.get(id)).is_some_and(|sent| sent.taken);
            if offset < *newest || (offset > *newest && !taken) {
                let text = format!("{}: of {key}, offset {offset} came after {newest}", endpoint.name);
                self.differences.push(if taken { text } else { format!("{text}, which was not taken") });
            }
        }
        self.newest.insert(key, (offset, message.id.clone()));
    }

    /// Records an answer, just before it is sent.
    pub(super) fn end(&mut self, endpoint: &Endpoint, request: &Request, answer: Answer) {
        self.count(answer.kind());
        let sent = self.sent.get_mut(endpoint.name).and_then(|sent| sent.get_mut(request.header("webhook-id")));
        if let Some(sent) = sent.filter(|_| answer.takes()) {
            sent.taken = true;
        }
    }

    /// Compares what was published with what was taken and with the dead letters of each subscription.
    pub(crate) fn compare(
        &mut self,
        published: &BTreeMap<u64, Option<String>>,
        letters: &BTreeMap<&'static str, Vec<Value>>,
        part: &mut Part,
    ) -> Vec<String> {
        let mut found = std::mem::take(&mut self.differences);
        let (nothing, none) = (BTreeMap::new(), Vec::new());
        for endpoint in ENDPOINTS {
            let sent = self.sent.get(endpoint.name).unwrap_or(&nothing);
            let letters = letters.get(endpoint.name).unwrap_or(&none);
            missing(endpoint, published, sent, letters, &mut found);
            invented(endpoint, published, sent, letters, &mut found);
            let taken = sent.values().filter(|sent| sent.taken).count();
            let (name, requests, letters) = (endpoint.name, self.requests(endpoint.name), letters.len());
            part.fact(format!("{name}: {taken} messages taken in {requests} requests, {letters} dead letters"));
        }
        part.must(
            self.repeats <= self.explained,
            format!(
                "{} requests repeated what was taken, or an attempt; {} interruptions explain up to {}",
                self.repeats, self.interruptions, self.explained
            ),
        );
        for kind in Answer::KINDS {
            part.sometimes(&format!("answers: {kind}"), self.answers.get(kind).copied().unwrap_or_default());
        }
        found
    }
}

/// Messages that were neither taken nor are dead letters for the right reason.
fn missing(
    endpoint: &Endpoint,
    published: &BTreeMap<u64, Option<String>>,
    sent: &BTreeMap<String, Sent>,
    letters: &[Value],
    found: &mut Vec<String>,
) {
    let by_id: BTreeMap<&str, &Value> =
        letters.iter().filter_map(|letter| Some((letter["message"]["id"].as_str()?, letter))).collect();
    let name = endpoint.name;
    for (number, id) in published.iter().filter(|(number, _)| endpoint.receives(**number)) {
        let Some(id) = id else { continue };
        let Some(expected) = endpoint.letters.filter(|_| endpoint.gives_up(*number)) else {
            if sent.get(id).is_none_or(|sent| !sent.taken) {
                let attempt = sent.get(id).map_or(0, |sent| sent.attempt);
                found.push(format!(
                    "message {number}, acknowledged as {id}, was never taken by {name}: {attempt} attempts"
                ));
            }
            continue;
        };
        match by_id.get(id.as_str()) {
            None => found.push(format!("message {number}, acknowledged as {id}, is no dead letter of {name}")),
            Some(letter) => {
                let (reason, status, error) = (&letter["reason"], &letter["last_status"], &letter["last_error"]);
                if *reason != expected.reason || *status != Value::from(expected.status) || *error != expected.error {
                    found.push(format!("message {number} is a dead letter of {name} for another reason: {letter}"));
                }
            }
        }
    }
}

/// Messages and dead letters that do not belong there.
fn invented(
    endpoint: &Endpoint,
    published: &BTreeMap<u64, Option<String>>,
    sent: &BTreeMap<String, Sent>,
    letters: &[Value],
    found: &mut Vec<String>,
) {
    let name = endpoint.name;
    let mut numbers = BTreeSet::new();
    for (id, sent) in sent {
        let number = sent.number;
        // Of an unknown outcome, at most one.
        let known = match published.get(&number) {
            Some(Some(known)) => known == id,
            Some(None) => true,
            None => false,
        };
        if !known || !numbers.insert(number) {
            found.push(format!(
                "{name} received message {number} as {id}, which was published as {:?}",
                published.get(&number)
            ));
        }
        if !endpoint.receives(number) {
            found.push(format!("{name} received message {number}, which its filter does not let pass"));
        }
    }
    for letter in letters {
        let number = letter["message"]["body"]["n"].as_u64();
        if !number.is_some_and(|number| endpoint.receives(number) && endpoint.gives_up(number)) {
            found.push(format!("a dead letter of {name} that should be none: {letter}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sent(number: u64, taken: bool) -> Sent {
        Sent { number, attempt: 1, taken, rest: None }
    }

    /// What is wrong with an endpoint that received this, when message 9 was published as `a` and message 10 has an unknown
    /// outcome.
    fn differences(name: &str, received: &[(&str, u64, bool)], letters: &[Value]) -> usize {
        let endpoint = Endpoint::named(name).unwrap();
        let published = BTreeMap::from([(9, Some("a".to_owned())), (10, None)]);
        let received = received.iter().map(|(id, number, taken)| ((*id).to_owned(), sent(*number, *taken))).collect();
        let mut found = Vec::new();
        missing(endpoint, &published, &received, letters, &mut found);
        invented(endpoint, &published, &received, letters, &mut found);
        found.len()
    }

    #[test]
    fn what_was_acknowledged_is_taken_or_a_dead_letter() {
        assert_eq!(differences("always", &[("a", 9, true)], &[]), 0);
        assert_eq!(differences("always", &[("a", 9, true), ("b", 10, true)], &[]), 0);
        assert_eq!(differences("always", &[], &[]), 1);
        assert_eq!(differences("always", &[("a", 9, false)], &[]), 1);
        let letter = json!({
            "reason": "permanent-status", "last_status": 422, "last_error": "http-status",
            "message": {"id": "a", "body": {"n": 9}},
        });
        let of_another_reason = json!({"reason": "max-age", "message": {"id": "a", "body": {"n": 9}}});
        assert_eq!(differences("picky", &[("a", 9, false)], std::slice::from_ref(&letter)), 0);
        assert_eq!(differences("picky", &[("a", 9, false)], &[of_another_reason]), 1);
        assert_eq!(differences("picky", &[("a", 9, true)], &[]), 1);
        assert_eq!(differences("always", &[("a", 9, true)], &[letter]), 1);
    }

    #[test]
    fn nothing_is_invented() {
        assert_eq!(differences("always", &[("a", 9, true), ("x", 9, true)], &[]), 1);
        assert_eq!(differences("always", &[("a", 9, true), ("b", 10, true), ("c", 10, true)], &[]), 1);
        assert_eq!(differences("always", &[("a", 9, true), ("d", 11, true)], &[]), 1);
        // Neither message passes the filter.
        assert_eq!(differences("slow-1", &[], &[]), 0);
        assert_eq!(differences("slow-1", &[("a", 9, true)], &[]), 1);
    }

    #[test]
    fn a_key_keeps_its_order() {
        let endpoint = Endpoint::named("ordered").unwrap();
        let mut deliveries = Deliveries::default();
        let mut send = |id: &str, number: u64, offset: u64, taken: bool| {
            let headers = [
                ("webhook-id", id.to_owned()),
                ("webhook-attempt", "1".to_owned()),
                ("millrace-topic", "faults".to_owned()),
                ("millrace-subscription", "ordered".to_owned()),
                ("x-key", key(number)),
            ];
            let headers = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            let body = json!({"offset": offset, "body": {"n": number}}).to_string().into_bytes();
            let request = Request { endpoint: "ordered".to_owned(), headers, body };
            let before = deliveries.differences.len();
            deliveries.begin(endpoint, &request, false, false);
            deliveries.end(endpoint, &request, Answer::Status(if taken { 204 } else { 500 }));
            // Nothing is signed here.
            deliveries.differences.len() - before - 1
        };
        assert_eq!(send("a", 0, 5, true), 0);
        assert_eq!(send("b", 8, 7, false), 0);
        assert_eq!(send("c", 1, 6, true), 0, "of another key");
        assert_eq!(send("b", 8, 7, true), 0, "again");
        assert_eq!(send("d", 16, 9, false), 0);
        assert_eq!(send("e", 24, 12, true), 1, "before the one before it was taken");
        assert_eq!(send("d", 16, 9, true), 1, "after the one behind it");
    }
}
