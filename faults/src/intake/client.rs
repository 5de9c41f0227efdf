//! Clients of `tcp/1`: they send numbered messages, and record what they were answered.

use std::collections::VecDeque;
use std::io::{self, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::AddAssign;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::event::mix;

/// Every so many messages of some clients one is too large: for the listener, or on the embedded engine, whose listener
/// takes longer ones, for the log. What follows it in the log does not continue the series.
const LARGE_EVERY: u64 = 97;
const LARGE: usize = 70_000;
/// Before a connection is opened again, and before frames are sent again.
const PAUSE: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// What is known of a message. Later answers only add.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    Unsent,
    /// Every answer was a NACK.
    Refused,
    /// A connection ended before the answer.
    Unknown,
    Acknowledged,
}

/// How a client behaves.
#[derive(Debug, Clone)]
pub(crate) struct Habits {
    pub(crate) id: String,
    pub(crate) epoch: Option<u64>,
    /// Most frames without an answer.
    pub(crate) window: usize,
    /// Frames of one write.
    pub(crate) burst: usize,
    /// The pause after a frame.
    pub(crate) pause: Duration,
    /// The longest wait for a reply.
    pub(crate) patience: Duration,
    /// Whether it uses the first server alone.
    pub(crate) faithful: bool,
    /// Whether some of its messages are too large. The server remembers numbers as ranges, and few of those.
    pub(crate) large: bool,
    /// Whether it leaves out what has no answer when a connection ends, and what it should send again.
    pub(crate) forgetful: bool,
    /// The number of messages; `None`: until the end of the traffic.
    pub(crate) count: Option<u64>,
}

/// A client with what it was answered.
#[derive(Debug)]
pub(crate) struct Sender {
    pub(crate) habits: Habits,
    /// By message; message n has the number n + 1.
    pub(crate) fates: Vec<Fate>,
    /// Messages to be sent before new ones, in order.
    pending: VecDeque<u64>,
    /// Sent on this connection and not answered.
    unanswered: VecDeque<u64>,
    /// Answered that they are to be sent again.
    again: Vec<u64>,
    resent: u64,
    /// Answers that no client may get.
    pub(crate) differences: Vec<String>,
}

/// What all clients share.
#[derive(Debug)]
pub(crate) struct Clients {
    seed: u64,
    servers: Vec<SocketAddr>,
    acknowledged: AtomicU64,
    /// No new messages.
    pub(crate) ending: AtomicBool,
    /// Nothing is sent any more.
    pub(crate) ended: AtomicBool,
}

/// Messages by their fate, and how many frames were sent again.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) acknowledged: u64,
    pub(crate) refused: u64,
    pub(crate) unknown: u64,
    pub(crate) resent: u64,
}

impl Habits {
    /// The bytes of a message: any bytes, none now and then.
    pub(crate) fn message(&self, seed: u64, number: u64) -> Vec<u8> {
        if self.is_large(number) {
            return vec![b'x'; LARGE];
        }
        let client = self.id.bytes().fold(seed, |hash, byte| mix(hash ^ u64::from(byte)));
        let random = mix(client ^ mix(number));
        (0..random % 120).map(|at| mix(random ^ at).to_le_bytes()[0]).collect()
    }

    /// Whether a message is refused for good.
    fn is_large(&self, number: u64) -> bool {
        self.large && number % LARGE_EVERY == LARGE_EVERY - 1
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Self) {
        self.acknowledged += more.acknowledged;
        self.refused += more.refused;
        self.unknown += more.unknown;
        self.resent += more.resent;
    }
}

impl Sender {
    pub(crate) fn new(habits: Habits) -> Self {
        Self {
            habits,
            fates: Vec::new(),
            pending: VecDeque::new(),
            unanswered: VecDeque::new(),
            again: Vec::new(),
            resent: 0,
            differences: Vec::new(),
        }
    }

    /// Sends every message once more, as a client does that was restarted with its epoch.
    pub(crate) fn repeat(&mut self) {
        self.pending = (0..self.fates.len() as u64).collect();
        self.resent += self.fates.len() as u64;
        self.habits.pause = Duration::ZERO;
        self.habits.count = Some(0);
    }

    pub(crate) fn tally(&self) -> Tally {
        let count = |fate| self.fates.iter().filter(|found| **found == fate).count() as u64;
        Tally {
            acknowledged: count(Fate::Acknowledged),
            refused: count(Fate::Refused),
            unknown: count(Fate::Unknown),
            resent: self.resent,
        }
    }

    /// The next message to be sent.
    fn next(&mut self, ending: bool) -> Option<u64> {
        let next = self.fates.len() as u64;
        if let Some(pending) = self.pending.pop_front() {
            return Some(pending);
        }
        let more = self.habits.count.map_or(!ending, |count| next < count);
        more.then(|| {
            self.fates.push(Fate::Unsent);
            next
        })
    }

    fn settle(&mut self, number: u64, fate: Fate) {
        if let Some(known) = usize::try_from(number).ok().and_then(|at| self.fates.get_mut(at)) {
            *known = fate.max(*known);
        }
    }

    fn differ(&mut self, what: &str) {
        self.differences.push(format!("client {}: {what}", self.habits.id));
    }

    /// Puts what is to be sent again in front, in order.
    fn send_again(&mut self) {
        self.resent += self.again.len() as u64;
        for number in self.again.drain(..).rev() {
            self.pending.push_front(number);
        }
    }

    /// The connection has ended: what has no answer may be stored.
    fn lose_connection(&mut self) {
        while let Some(number) = self.unanswered.pop_front() {
            self.settle(number, Fate::Unknown);
            self.again.push(number);
        }
        if self.habits.forgetful {
            self.again.clear();
        }
        self.send_again();
    }

    /// Takes the reply to the oldest frame without one. Returns whether it is an acknowledgement.
    ///
    /// # Errors
    /// The connection is of no use any more.
    fn take(&mut self, reply: &str) -> io::Result<bool> {
        let words: Vec<&str> = reply.split(' ').collect();
        if words.starts_with(&["NACK", "0"]) {
            return Err(io::Error::other(reply.to_owned()));
        }
        let Some(number) = self.unanswered.pop_front() else {
            self.differ(&format!("{reply:?} answers nothing"));
            return Err(io::ErrorKind::InvalidData.into());
        };
        if words.get(1).is_none_or(|word| *word != (number + 1).to_string()) {
            self.unanswered.push_front(number);
            self.differ(&format!("{reply:?} answers frame {}", number + 1));
            return Err(io::ErrorKind::InvalidData.into());
        }
        let fate = match (words[0], words.get(2).copied()) {
            ("ACK", None) => Fate::Acknowledged,
            ("NACK", Some("413")) => Fate::Refused,
            ("NACK", Some("409" | "429" | "503" | "507")) => {
                self.settle(number, Fate::Refused);
                self.again.push(number);
                return Ok(false);
            }
            _ => {
                self.unanswered.push_front(number);
                self.differ(&format!("unknown reply {reply:?}"));
                return Err(io::ErrorKind::InvalidData.into());
            }
        };
        let large = self.habits.is_large(number);
        if large != (fate == Fate::Refused) {
            self.differ(&format!("{reply:?} answers a message that is{} too large", if large { "" } else { " not" }));
        }
        self.settle(number, fate);
        Ok(fate == Fate::Acknowledged)
    }
}

impl Clients {
    /// Clients of these servers; the seed determines their messages.
    pub(crate) fn new(seed: u64, servers: Vec<SocketAddr>) -> Self {
        let (ending, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { seed, servers, acknowledged: AtomicU64::new(0), ending, ended }
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Acknowledgements so far.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Sends messages, over as many connections as it takes, each to the next server.
    pub(crate) fn drive(&self, sender: &mut Sender) {
        let servers = if sender.habits.faithful { &self.servers[..1] } else { &self.servers[..] };
        for server in servers.iter().cycle() {
            let nothing_left = self.exchange(*server, sender);
            sender.lose_connection();
            if self.is_ended() || matches!(nothing_left, Ok(true)) {
                return;
            }
            thread::sleep(PAUSE);
        }
    }

    /// Sends on one connection until it ends. Returns whether nothing is left to be sent.
    fn exchange(&self, server: SocketAddr, sender: &mut Sender) -> io::Result<bool> {
        let habits = sender.habits.clone();
        let mut stream = TcpStream::connect_timeout(&server, CONNECT_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(habits.patience))?;
        stream.set_write_timeout(Some(habits.patience))?;
        let mut replies = BufReader::new(stream.try_clone()?);
        if let Some(epoch) = habits.epoch {
            writeln!(stream, "HELLO {} epoch={epoch}", habits.id)?;
            if !line(&mut replies)?.starts_with("OK ") {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
        }
        loop {
            let (mut frames, mut sent) = (Vec::new(), 0);
            while sent < habits.burst && sender.again.is_empty() && sender.unanswered.len() < habits.window {
                let Some(number) = sender.next(self.is_ending()) else { break };
                let message = habits.message(self.seed, number);
                writeln!(frames, "{} {} {}", habits.id, number + 1, message.len())?;
                frames.extend_from_slice(&message);
                frames.push(b'\n');
                sender.unanswered.push_back(number);
                sent += 1;
            }
            stream.write_all(&frames)?;
            // Everything, if frames are to be sent again or none is left; else as much as the next burst needs.
            while !sender.unanswered.is_empty()
                && (sent == 0 || !sender.again.is_empty() || sender.unanswered.len() + habits.burst > habits.window)
            {
                let acknowledged = sender.take(&line(&mut replies)?)?;
                self.acknowledged.fetch_add(u64::from(acknowledged), Ordering::Relaxed);
            }
            if sender.again.is_empty() {
                if self.is_ended() || sent == 0 {
                    return Ok(true);
                }
                thread::sleep(habits.pause * u32::try_from(sent).unwrap_or(1));
            } else if habits.forgetful || self.is_ended() {
                // This connection takes nothing else before they have come again.
                return Ok(false);
            } else {
                sender.send_again();
                thread::sleep(PAUSE);
            }
        }
    }
}

/// Reads a line without its LF.
fn line(replies: &mut impl io::BufRead) -> io::Result<String> {
    let mut line = String::new();
    replies.read_line(&mut line)?;
    if line.pop() == Some('\n') { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(forgetful: bool) -> Sender {
        let habits = Habits {
            id: "a".into(),
            epoch: None,
            window: 10,
            burst: 1,
            pause: Duration::ZERO,
            patience: Duration::from_secs(1),
            faithful: false,
            large: false,
            forgetful,
            count: Some(4),
        };
        let mut sender = Sender::new(habits);
        while let Some(number) = sender.next(false) {
            sender.unanswered.push_back(number);
        }
        sender
    }

    #[test]
    fn what_has_no_answer_is_sent_again_in_order_or_forgotten() {
        for forgetful in [false, true] {
            let mut sender = sender(forgetful);
            assert!(sender.take("ACK 1").unwrap());
            assert!(!sender.take("NACK 2 409 behind").unwrap());
            assert!(sender.take("NACK 0 503 shutting-down").is_err());
            sender.lose_connection();
            assert_eq!(sender.fates, [Fate::Acknowledged, Fate::Refused, Fate::Unknown, Fate::Unknown]);
            assert_eq!(sender.pending, if forgetful { vec![] } else { vec![1, 2, 3] });
            assert!(sender.differences.is_empty());
        }
        let mut sender = sender(false);
        assert!(sender.take("ACK 2").is_err());
        assert_eq!((sender.differences.len(), sender.unanswered.len()), (1, 4));
    }
}
