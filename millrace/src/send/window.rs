//! What a sender has not been answered yet: which frames to send next, and what each reply means.

use std::collections::VecDeque;
use std::time::Duration;

/// A message of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) seq: u64,
    pub(super) payload: Vec<u8>,
}

/// A reply about the connection or a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Ack(u64),
    /// Status, word and rest of a refusal.
    Nack {
        seq: u64,
        status: u16,
        word: String,
        retry: Option<Duration>,
    },
    /// Anything else.
    Other,
}

impl Reply {
    pub(super) fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        match words.next()? {
            "ACK" => Some(Self::Ack(words.next()?.parse().ok()?)),
            "NACK" => {
                let (seq, status) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                let word = words.next()?.to_owned();
                let retry = words.find_map(|word| word.strip_prefix("retry_ms=")?.parse().ok());
                Some(Self::Nack { seq, status, word, retry: retry.map(Duration::from_millis) })
            }
            _ => Some(Self::Other),
        }
    }
}

/// What a reply did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Effect {
    Acknowledged,
    /// Refused for good.
    Refused(String),
    /// To be sent again, after a pause if the reply names one.
    Again(Option<Duration>),
    /// The server ends the connection; the word says why.
    Closing(String),
    /// No reply to the frame that is due.
    Unexpected,
    None,
}

/// Messages without an answer, in order. Those in front are sent.
#[derive(Debug, Default)]
pub(super) struct Window {
    messages: VecDeque<(Message, State)>,
    /// Replies to come before refused frames are sent again.
    sent: usize,
    /// A frame is to be sent again: no new ones before it.
    again: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Sent,
    /// Sent and to be sent again.
    Again,
}

impl Window {
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn push(&mut self, message: Message) {
        self.messages.push_back((message, State::New));
    }

    /// Whether frames wait for others to be answered, and then for a pause.
    pub(super) fn is_refused(&self) -> bool {
        self.again
    }

    /// Whether every frame sent is answered.
    pub(super) fn is_settled(&self) -> bool {
        self.sent == 0
    }

    /// The pause is over: everything may be sent.
    pub(super) fn resume(&mut self) {
        self.again = false;
    }

    /// A new connection: every frame is sent from the first one. Returns how many of them were sent before.
    pub(super) fn reconnect(&mut self) {
        for (_, state) in &mut self.messages {
            if *state == State::Sent {
                *state = State::Again;
            }
        }
        (self.sent, self.again) = (0, false);
    }

    /// Hands every frame that may be sent to `send`, with whether it was sent before.
    pub(super) fn send(&mut self, mut send: impl FnMut(&Message, bool)) {
        if self.again {
            return;
        }
        for (message, state) in &mut self.messages {
            if *state != State::Sent {
                send(message, *state == State::Again);
                *state = State::Sent;
                self.sent += 1;
            }
        }
    }

    /// Takes a reply in. Replies come in the order of the frames.
    pub(super) fn reply(&mut self, reply: &Reply) -> Effect {
        let seq = match reply {
            Reply::Nack { seq: 0, word, .. } => return Effect::Closing(word.clone()),
            Reply::Ack(seq) | Reply::Nack { seq, .. } => *seq,
            Reply::Other => return Effect::None,
        };
        let due = self.messages.iter().position(|(_, state)| *state == State::Sent);
        let Some(due) = due.filter(|&due| self.messages[due].0.seq == seq) else { return Effect::Unexpected };
        self.sent -= 1;
        match reply {
            Reply::Nack { status: 409 | 429 | 503 | 507, retry, .. } => {
                self.messages[due].1 = State::Again;
                self.again = true;
                Effect::Again(*retry)
            }
            Reply::Nack { word, .. } => {
                self.messages.remove(due);
                Effect::Refused(word.clone())
            }
            Reply::Ack(_) | Reply::Other => {
                self.messages.remove(due);
                Effect::Acknowledged
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(count: u64) -> Window {
        let mut window = Window::default();
        for seq in 1..=count {
            window.push(Message { seq, payload: Vec::new() });
        }
        window
    }

    fn sends(window: &mut Window) -> Vec<(u64, bool)> {
        let mut sent = Vec::new();
        window.send(|message, again| sent.push((message.seq, again)));
        sent
    }

    fn nack(seq: u64, status: u16) -> Reply {
        Reply::Nack { seq, status, word: "w".into(), retry: None }
    }

    #[test]
    fn replies_are_read() {
        assert_eq!(Reply::parse("ACK 7"), Some(Reply::Ack(7)));
        let retry = Some(Duration::from_millis(50));
        let expected = Reply::Nack { seq: 7, status: 503, word: "unavailable".into(), retry };
        assert_eq!(Reply::parse("NACK 7 503 unavailable retry_ms=50"), Some(expected));
        assert_eq!(Reply::parse("PONG"), Some(Reply::Other));
        assert_eq!(Reply::parse("ACK x"), None);
        assert_eq!(Reply::parse("NACK 1"), None);
    }

    #[test]
    fn refused_frames_are_sent_again_in_order_once_all_are_answered() {
        let mut window = window(4);
        assert_eq!(sends(&mut window), [(1, false), (2, false), (3, false), (4, false)]);
        assert_eq!(window.reply(&Reply::Ack(1)), Effect::Acknowledged);
        assert_eq!(window.reply(&nack(2, 503)), Effect::Again(None));
        window.push(Message { seq: 5, payload: Vec::new() });
        assert_eq!(sends(&mut window), []);
        assert_eq!(window.reply(&nack(3, 413)), Effect::Refused("w".into()));
        assert_eq!(window.reply(&nack(4, 409)), Effect::Again(None));
        assert!(window.is_settled() && window.is_refused());
        window.resume();
        assert_eq!(sends(&mut window), [(2, true), (4, true), (5, false)]);
        assert_eq!(window.reply(&Reply::Ack(4)), Effect::Unexpected);
    }

    #[test]
    fn a_new_connection_begins_with_the_first_frame_that_is_not_answered() {
        let mut window = window(3);
        sends(&mut window);
        window.reply(&Reply::Ack(1));
        assert_eq!(window.reply(&nack(0, 503)), Effect::Closing("w".into()));
        window.reconnect();
        assert_eq!((sends(&mut window), window.len()), (vec![(2, true), (3, true)], 2));
    }
}
