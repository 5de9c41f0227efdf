//! The endpoints: their subscriptions, and how each of them answers.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::messages::TOPIC;

/// How long a slow endpoint takes: longer than the second after which it counts as slow.
pub(crate) const SLOW: Duration = Duration::from_secs(2);
/// Endpoints that are slow.
pub(crate) const SLOW_ENDPOINTS: usize = 3;
/// Keys of the messages.
const KEYS: u64 = 8;
/// The pauses of most subscriptions.
const SCHEDULE: [&str; 2] = ["200ms", "1s"];

/// What a request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A status without a body.
    Status(u16),
    /// 429 with `Retry-After` of so many seconds, as a number or as a date.
    Rest {
        /// The rest.
        seconds: u32,
        /// Whether it is a date.
        as_date: bool,
    },
    /// 204 after [`SLOW`].
    Slow,
    /// 302 to a metadata service, or to a listener that nothing may connect to.
    Redirect {
        /// To the metadata service.
        metadata: bool,
    },
    /// A status with a body that nobody reads to its end.
    Huge(u16),
    /// The connection is reset.
    Reset,
    /// Nothing, until the client closes the connection.
    Never,
}

impl Answer {
    /// Every kind: each has to occur in a run.
    pub(crate) const KINDS: [&'static str; 14] = [
        "204",
        "500",
        "410",
        "422",
        "429 with seconds",
        "429 with a date",
        "204 after two seconds",
        "redirect to the metadata service",
        "redirect to a listener",
        "200 with a huge body",
        "500 with a huge body",
        "reset",
        "no answer",
        "a certificate that nobody signed",
    ];
    /// The one of [`Self::KINDS`] that is no answer to a request.
    pub(crate) const TLS: &'static str = Self::KINDS[13];

    /// Whether the endpoint took the message.
    pub(crate) fn takes(self) -> bool {
        matches!(self, Self::Status(200..=299) | Self::Slow | Self::Huge(200..=299))
    }

    /// Its kind.
    pub(crate) fn kind(self) -> &'static str {
        let index = match self {
            Self::Status(410) => 2,
            Self::Status(422) => 3,
            Self::Status(500..=599) => 1,
            Self::Status(_) => 0,
            Self::Rest { as_date, .. } => 4 + usize::from(as_date),
            Self::Slow => 6,
            Self::Redirect { metadata } => 8 - usize::from(metadata),
            Self::Huge(status) => 9 + usize::from(status >= 500),
            Self::Reset => 11,
            Self::Never => 12,
        };
        Self::KINDS[index]
    }
}

/// What an endpoint decides by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Question {
    /// The number of the message.
    pub(crate) number: u64,
    /// Whether it is its first attempt.
    pub(crate) first: bool,
    /// Requests to the endpoint before this one.
    pub(crate) before: u64,
    /// No new messages: the slow endpoints are slow no longer.
    pub(crate) ending: bool,
    /// The endpoint that was gone is back.
    pub(crate) back: bool,
}

impl Question {
    /// The first attempt of one message of `of`.
    fn is(self, of: u64, remainder: u64) -> bool {
        self.first && self.number % of == remainder
    }
}

/// The dead letters of a subscription.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Letters {
    /// Which messages become such.
    pub(crate) has: fn(u64) -> bool,
    pub(crate) reason: &'static str,
    pub(crate) status: Option<u16>,
    pub(crate) error: &'static str,
}

/// An endpoint and its subscription.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// The name of the subscription.
    pub(crate) name: &'static str,
    /// Its settings beside mode, URL, filter and schedule, as JSON.
    settings: &'static str,
    /// The messages that its filter lets pass; `None`: all.
    lane: Option<&'static str>,
    /// Whether messages of a key come in their order. Such a subscription has the body mode `envelope`.
    pub(crate) by_key: bool,
    pub(crate) letters: Option<Letters>,
    /// Whether it is reached through TLS only, with a certificate that nobody signed.
    pub(crate) tls: bool,
    pub(crate) answer: fn(Question) -> Answer,
}

const ALWAYS: Endpoint = Endpoint {
    name: "always",
    settings: "{}",
    lane: None,
    by_key: false,
    letters: None,
    tls: false,
    answer: |_| Answer::Status(204),
};

const SLOW_ONE: Endpoint = Endpoint { lane: Some("even"), answer: slow, ..ALWAYS };

/// All of them. Whoever fails does so rarely, except `down` and `gone`: breakers stay closed, and everything ends in time.
pub(crate) const ENDPOINTS: &[Endpoint] = &[
    ALWAYS,
    // Ten failures open the breaker.
    Endpoint { name: "down", answer: |question| status(question.before < 10, 500), ..ALWAYS },
    // At any time some messages are in retry.
    Endpoint {
        name: "failing",
        settings: r#"{"push":{"schedule":["10s"]}}"#,
        answer: |question| status(question.is(64, 1), 500),
        ..ALWAYS
    },
    Endpoint { name: "resting", answer: rests, ..ALWAYS },
    Endpoint { name: "slow-1", ..SLOW_ONE },
    Endpoint { name: "slow-2", ..SLOW_ONE },
    Endpoint { name: "slow-3", ..SLOW_ONE },
    Endpoint { name: "resets", answer: |question| either(question.is(64, 5), Answer::Reset), ..ALWAYS },
    Endpoint { name: "huge", answer: huge, ..ALWAYS },
    Endpoint {
        name: "silent",
        settings: r#"{"push":{"timeout":"1s"}}"#,
        answer: |question| either(question.is(64, 7), Answer::Never),
        ..ALWAYS
    },
    Endpoint {
        name: "picky",
        settings: r#"{"push":{"permanent_statuses":[422]}}"#,
        letters: Some(Letters {
            has: |number| number % 32 == 9,
            reason: "permanent-status",
            status: Some(422),
            error: "http-status",
        }),
        answer: |question| status(question.number % 32 == 9, 422),
        ..ALWAYS
    },
    Endpoint { name: "redirects", answer: redirects, ..ALWAYS },
    Endpoint {
        name: "ordered",
        settings: r#"{"order":"key","push":{"body":"envelope"}}"#,
        by_key: true,
        answer: |question| status(question.is(64, 13), 500),
        ..ALWAYS
    },
    Endpoint { name: "gone", answer: |question| status(!question.back, 410), ..ALWAYS },
    // So few that the breaker stays closed.
    Endpoint {
        name: "untrusted",
        settings: r#"{"max_attempts":2}"#,
        lane: Some("few"),
        letters: Some(Letters { has: |_| true, reason: "max-attempts", status: None, error: "tls" }),
        tls: true,
        ..ALWAYS
    },
];

fn either(holds: bool, answer: Answer) -> Answer {
    if holds { answer } else { Answer::Status(204) }
}

fn status(fails: bool, status: u16) -> Answer {
    either(fails, Answer::Status(status))
}

fn slow(question: Question) -> Answer {
    either(!question.ending, Answer::Slow)
}

fn rests(question: Question) -> Answer {
    if question.is(200, 20) {
        return Answer::Rest { seconds: 1, as_date: false };
    }
    either(question.is(200, 120), Answer::Rest { seconds: 2, as_date: true })
}

fn huge(question: Question) -> Answer {
    if question.is(64, 3) {
        return Answer::Huge(500);
    }
    either(question.number % 16 == 3, Answer::Huge(200))
}

fn redirects(question: Question) -> Answer {
    either(question.is(64, 11), Answer::Redirect { metadata: question.number % 128 == 11 })
}

impl Endpoint {
    /// The endpoint of a subscription.
    pub(crate) fn named(name: &str) -> Option<&'static Self> {
        ENDPOINTS.iter().find(|endpoint| endpoint.name == name)
    }

    /// Whether a message passes its filter.
    pub(crate) fn receives(&self, number: u64) -> bool {
        self.lane.is_none_or(|own| own == lane(number))
    }

    /// Whether a message becomes a dead letter.
    pub(crate) fn gives_up(&self, number: u64) -> bool {
        self.letters.is_some_and(|letters| (letters.has)(number))
    }

    /// The body that creates its subscription: endpoints are reached at `plain`, or through TLS at `tls`.
    pub(crate) fn body(&self, plain: SocketAddr, tls: SocketAddr) -> String {
        let mut body: Value = serde_json::from_str(self.settings).expect("the settings are JSON");
        body["mode"] = json!("push");
        let (scheme, address) = if self.tls { ("https", tls) } else { ("http", plain) };
        body["push"]["url"] = json!(format!("{scheme}://{address}/{}", self.name));
        if body["push"]["schedule"].is_null() {
            body["push"]["schedule"] = json!(SCHEDULE);
        }
        if let Some(lane) = self.lane {
            body["filter"] = json!({"exact": {"lane": lane}});
        }
        body.to_string()
    }
}

/// The path of a subscription.
pub(crate) fn subscription(name: &str) -> String {
    format!("{TOPIC}/subscriptions/{name}")
}

/// The attribute that filters see.
pub(crate) fn lane(number: u64) -> &'static str {
    match number {
        10 | 60 | 110 | 160 => "few",
        _ if number.is_multiple_of(2) => "even",
        _ => "odd",
    }
}

/// The ordering key of a message.
pub(crate) fn key(number: u64) -> String {
    format!("key-{}", number % KEYS)
}

/// Headers of a publish.
pub(crate) fn headers(number: u64) -> Vec<(&'static str, String)> {
    vec![("x-attr-lane", lane(number).to_owned()), ("x-key", key(number))]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_of_answer_occurs_soon() {
        let mut kinds: BTreeSet<&str> = BTreeSet::from([Answer::TLS]);
        for endpoint in ENDPOINTS.iter().filter(|endpoint| !endpoint.tls) {
            for number in 0..200 {
                let question = Question { number, first: true, before: number, ending: false, back: false };
                let answer = (endpoint.answer)(question);
                kinds.insert(answer.kind());
                let again =
                    (endpoint.answer)(Question { first: false, before: 10, ending: true, back: true, ..question });
                assert_eq!(again.takes(), !endpoint.gives_up(number), "{} {number}", endpoint.name);
            }
        }
        assert_eq!(kinds, Answer::KINDS.into());
        assert_eq!(ENDPOINTS.iter().filter(|endpoint| endpoint.name.starts_with("slow-")).count(), SLOW_ENDPOINTS);
    }

    #[test]
    fn a_subscription_is_created_with_its_settings() {
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let body = |name: &str| -> Value {
            serde_json::from_str(&Endpoint::named(name).unwrap().body(address, address)).unwrap()
        };
        assert_eq!(
            body("failing"),
            json!({"mode": "push", "push": {"schedule": ["10s"], "url": "http://127.0.0.1:9/failing"}})
        );
        let untrusted = body("untrusted");
        assert_eq!((&untrusted["max_attempts"], &untrusted["push"]["schedule"]), (&json!(2), &json!(SCHEDULE)));
        assert_eq!(untrusted["filter"], json!({"exact": {"lane": "few"}}));
        assert_eq!(untrusted["push"]["url"], json!("https://127.0.0.1:9/untrusted"));
    }
}
