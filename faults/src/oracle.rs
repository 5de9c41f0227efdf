//! The outcomes of all sends, from responses alone: acknowledged, refused or unknown.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crate::client::Attempt;
use crate::lock;

/// The outcome of a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The event is in the log.
    Acknowledged,
    /// The event is not in the log; a retry may succeed.
    Later,
    /// The event is not in the log, and no retry changes that.
    Refused,
    /// The event may be in the log.
    Unknown,
}

/// The outcomes of one event's sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SendCounts {
    /// Acknowledgements.
    pub acknowledged: u32,
    /// Sends of unknown outcome.
    pub unknown: u32,
}

/// The outcomes of every event, and how often each answer came.
#[derive(Debug, Default)]
pub struct Oracle {
    events: Mutex<Vec<SendCounts>>,
    answers: Mutex<BTreeMap<String, u64>>,
}

/// The outcome of a request, and the answer as a word for the tally.
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
    /// Records one send of an event.
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

    /// The outcomes of every event, by number.
    pub fn send_counts(&self) -> Vec<SendCounts> {
        lock(&self.events).clone()
    }

    /// How often each answer came.
    pub fn answers(&self) -> BTreeMap<String, u64> {
        lock(&self.answers).clone()
    }

    /// How often an answer came whose word contains this one.
    pub fn answered(&self, word: &str) -> u64 {
        lock(&self.answers).iter().filter(|(key, _)| key.contains(word)).map(|(_, count)| count).sum()
    }

    /// The number of acknowledged events.
    pub fn acknowledged(&self) -> u64 {
        lock(&self.events).iter().filter(|sends| sends.acknowledged > 0).count() as u64
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
    fn judges_by_status_and_code() {
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
