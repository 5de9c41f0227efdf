//! What is known about every event from the outside: acknowledged, refused or unknown. Nothing else is believed.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::client::Attempt;
use crate::lock;

/// What an answer says about an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is in the log.
    Acknowledged,
    /// It is not in the log; worth another try.
    Later,
    /// It is not in the log and never will be.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// How it stands with one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SendCounts {
    /// Answers that said it is in the log.
    pub acknowledged: u32,
    /// Sends of which nobody knows.
    pub unknown: u32,
}

/// Every event's standing, and what was answered how often.
#[derive(Debug, Default)]
pub struct Oracle {
    events: Mutex<Vec<SendCounts>>,
    answers: Mutex<BTreeMap<String, u64>>,
}

/// The verdict on a request, and the word under which it is tallied.
pub fn judge(sent: &Attempt) -> (Verdict, String) {
    match sent {
        Attempt::NotSent => (Verdict::Later, "no connection".to_owned()),
        Attempt::Unknown => (Verdict::Unknown, "no answer".to_owned()),
        Attempt::Response { status: 200..=299, .. } => (Verdict::Acknowledged, "acknowledged".to_owned()),
        Attempt::Response { status, body, .. } => {
            let problem: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
            let code = problem["code"].as_str().unwrap_or("no code").to_owned();
            let verdict = match (*status, code.as_str()) {
                (408 | 429, _) | (503, "overloaded" | "unavailable" | "disk-full" | "shutting-down") => Verdict::Later,
                (400..=499, _) => Verdict::Refused,
                _ => Verdict::Unknown,
            };
            (verdict, format!("{status} {code}"))
        }
    }
}

impl Oracle {
    /// Notes how one send of an event ended.
    pub fn note(&self, number: u64, verdict: Verdict, word: String) {
        *lock(&self.answers).entry(word).or_default() += 1;
        let mut events = lock(&self.events);
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        if events.len() <= index {
            events.resize(index + 1, SendCounts::default());
        }
        match verdict {
            Verdict::Acknowledged => events[index].acknowledged += 1,
            Verdict::Unknown => events[index].unknown += 1,
            Verdict::Later | Verdict::Refused => {}
        }
    }

    /// Every event's standing, by number.
    pub fn send_counts(&self) -> Vec<SendCounts> {
        lock(&self.events).clone()
    }

    /// How often each answer was given.
    pub fn answers(&self) -> BTreeMap<String, u64> {
        lock(&self.answers).clone()
    }

    /// How often an answer was given whose word contains this.
    pub fn answered(&self, word: &str) -> u64 {
        lock(&self.answers).iter().filter(|(key, _)| key.contains(word)).map(|(_, count)| count).sum()
    }

    /// How many events are in the log for certain.
    pub fn acknowledged(&self) -> u64 {
        lock(&self.events).iter().filter(|standing| standing.acknowledged > 0).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(status: u16, code: &str) -> Verdict {
        let body = format!("{{\"code\":\"{code}\"}}");
        judge(&Attempt::Response { status, retry_after: None, body }).0
    }

    #[test]
    fn only_what_says_so_is_known() {
        assert_eq!(verdict(204, ""), Verdict::Acknowledged);
        assert_eq!(verdict(202, ""), Verdict::Acknowledged);
        assert_eq!(verdict(503, "unavailable"), Verdict::Later);
        assert_eq!(verdict(503, "outcome-unknown"), Verdict::Unknown);
        assert_eq!(verdict(503, "anything else"), Verdict::Unknown);
        assert_eq!(verdict(500, "internal"), Verdict::Unknown);
        assert_eq!(verdict(422, "outside-window"), Verdict::Refused);
        assert_eq!(judge(&Attempt::Unknown).0, Verdict::Unknown);
        assert_eq!(judge(&Attempt::NotSent).0, Verdict::Later);
    }
}
