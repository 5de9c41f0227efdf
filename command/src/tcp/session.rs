//! One connection's protocol, without I/O: bytes in; frames to append and replies out.
//!
//! The order of frames is the order of replies, which `Replies` keeps. What a client has to send again is in `owed`, in order; until it has done so, every other frame is answered `409 behind`, so
//! that frames of a client never overtake each other.

use std::collections::VecDeque;
use std::ops::Range;

use super::admission::Admission;
use super::frame::{Line, Scan, scan};
use super::replies::{Counts, Replies, Settled};
use super::reply::{Announced, Closing, Nack, Reply};

/// A longer message is not skipped: the connection is closed.
const MAX_SKIP: u64 = 1 << 20;
/// Most sequence numbers of frames to be sent again that are remembered: a client has no more unanswered.
const MAX_OWED: usize = 1024;

/// Bounds of one connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionLimits {
    pub(crate) announced: Announced,
    /// Most payload bytes under way.
    pub(crate) window_bytes: usize,
}

/// A frame to append; the payload's place in the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) seq: u64,
    pub(crate) payload: Range<usize>,
}

/// A payload that is read and thrown away.
#[derive(Debug, Clone, Copy)]
struct Skip {
    seq: u64,
    why: Nack,
    /// With the LF.
    left: u64,
}

/// The client of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) id: Box<str>,
    pub(crate) epoch: Option<u64>,
}

/// The state of one connection.
#[derive(Debug)]
pub(crate) struct Session {
    limits: SessionLimits,
    admission: Admission,
    client: Option<Client>,
    /// A line was read: HELLO comes too late.
    begun: bool,
    skip: Option<Skip>,
    partial: bool,
    replies: Replies,
    /// Frames that the client has to send again before any other.
    owed: VecDeque<u64>,
    /// Outcomes to come of frames that were answered `409 behind` already.
    abandoned: usize,
    failures: u64,
    /// Why every frame is refused now, if it is.
    gate: Option<Nack>,
    ended: bool,
    /// Lines and frames that were read to their end.
    items: u64,
}

impl Session {
    pub(crate) fn new(limits: SessionLimits, admission: Admission) -> Self {
        Self {
            limits,
            admission,
            client: None,
            begun: false,
            skip: None,
            partial: false,
            replies: Replies::new(limits.announced),
            owed: VecDeque::new(),
            abandoned: 0,
            failures: 0,
            gate: None,
            ended: false,
            items: 0,
        }
    }

    /// The client; known once a frame was handed out.
    pub(crate) fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    /// Who sends.
    pub(crate) fn admission(&self) -> &Admission {
        &self.admission
    }

    /// Refuses every frame from now on, or no more.
    pub(crate) fn set_gate(&mut self, gate: Option<Nack>) {
        self.gate = gate;
    }

    /// Reads `input` as far as the window allows; returns how much of it is done with. Frames to append are added to
    /// `frames`; each must be settled, in order.
    pub(crate) fn receive(&mut self, input: &[u8], frames: &mut Vec<Frame>) -> usize {
        let mut at = 0;
        self.partial = false;
        while !self.ended && self.has_capacity() {
            if let Some(skip) = self.skip {
                at += self.skip_over(skip, &input[at..]);
                if self.skip.is_some() {
                    self.partial = true;
                    break;
                }
                self.items += 1;
                continue;
            }
            match scan(&input[at..]) {
                Scan::Bad => self.close(Closing::BadFrame),
                Scan::Partial => {
                    self.partial = at < input.len();
                    break;
                }
                Scan::Line(Line::Ping | Line::Bye | Line::Header { .. }, _) if self.admission.is_missing() => {
                    match self.admission.admit(None) {
                        // The line is read again.
                        Ok(()) => continue,
                        Err(why) => self.close(why),
                    }
                }
                Scan::Line(Line::Header { client, seq, len }, line) => {
                    let Some(used) = self.frame(client, (seq, len), &input[at..], line, at, frames) else {
                        self.partial = true;
                        break;
                    };
                    at += used;
                }
                Scan::Line(other, line) => {
                    at += line;
                    self.command(other);
                }
            }
            self.begun = true;
            self.items += 1;
        }
        at
    }

    fn command(&mut self, line: Line<'_>) {
        match line {
            Line::Hello { client, epoch, token } if !self.begun => match self.admission.admit(token) {
                Ok(()) => {
                    self.client = Some(Client { id: client.into(), epoch });
                    self.replies.push(Reply::Hello);
                }
                Err(why) => self.close(why),
            },
            Line::Ping => self.replies.push(Reply::Pong),
            Line::Bye => {
                self.replies.push(Reply::Bye);
                self.ended = true;
            }
            Line::Hello { .. } | Line::Header { .. } => self.close(Closing::BadFrame),
        }
    }

    /// Takes the frame whose header of `line` bytes begins `rest`; `base` is the place of `rest` in the input. Returns how
    /// much of it is used; `None` if more has to come first.
    fn frame(
        &mut self,
        client: Option<&str>,
        (seq, len): (u64, u64),
        rest: &[u8],
        line: usize,
        base: usize,
        frames: &mut Vec<Frame>,
    ) -> Option<usize> {
        let other = match (client, &self.client) {
            (Some(id), Some(own)) => *id != *own.id,
            (None, None) => {
                self.close(Closing::BadFrame);
                return Some(0);
            }
            (Some(_), None) | (None, Some(_)) => false,
        };
        let too_large = len > self.limits.announced.max_message as u64;
        if len > MAX_SKIP {
            self.refuse(seq, if other { Nack::ClientIdChanged } else { Nack::TooLarge });
            self.ended = true;
            return Some(line);
        }
        if too_large || other {
            self.remember_client(client);
            let why = if other { Nack::ClientIdChanged } else { Nack::TooLarge };
            self.skip = Some(Skip { seq, why, left: len + 1 });
            return Some(line);
        }
        let end = line + usize::try_from(len).unwrap_or(usize::MAX);
        if *rest.get(end)? != b'\n' {
            self.close(Closing::BadFrame);
            return Some(0);
        }
        self.remember_client(client);
        if let Some(nack) = self.refusal(seq) {
            self.refuse(seq, nack);
        } else {
            self.replies.wait_for(seq, end - line);
            frames.push(Frame { seq, payload: base + line..base + end });
        }
        Some(end + 1)
    }

    fn remember_client(&mut self, client: Option<&str>) {
        if let (Some(id), None) = (client, &self.client) {
            self.client = Some(Client { id: id.into(), epoch: None });
        }
    }

    /// Why a frame cannot be taken now; notes that it is owed.
    fn refusal(&mut self, seq: u64) -> Option<Nack> {
        if self.owed.front().is_some_and(|&first| first != seq) {
            if self.owed.len() < MAX_OWED && !self.owed.contains(&seq) {
                self.owed.push_back(seq);
            }
            return Some(Nack::Behind);
        }
        match self.gate {
            None => {
                self.owed.pop_front();
            }
            Some(_) if self.owed.is_empty() => self.owed.push_back(seq),
            Some(_) => {}
        }
        self.gate
    }

    fn refuse(&mut self, seq: u64, why: Nack) {
        self.replies.push(Reply::Nack(seq, why));
    }

    fn skip_over(&mut self, skip: Skip, rest: &[u8]) -> usize {
        let len = usize::try_from(skip.left).unwrap_or(usize::MAX).min(rest.len());
        let left = skip.left - len as u64;
        if left > 0 {
            self.skip = Some(Skip { left, ..skip });
            return len;
        }
        self.skip = None;
        if rest[len - 1] != b'\n' {
            self.close(Closing::BadFrame);
            return len;
        }
        // Refused for good: nothing waits for it any longer.
        if self.owed.front() == Some(&skip.seq) {
            self.owed.pop_front();
        }
        self.refuse(skip.seq, skip.why);
        len
    }

    /// How the oldest frames that are not settled ended.
    pub(crate) fn settle(&mut self, outcomes: impl IntoIterator<Item = Settled>) {
        for outcome in outcomes {
            if self.abandoned > 0 {
                self.abandoned -= 1;
                continue;
            }
            let Some(seq) = self.replies.settle(outcome) else {
                debug_assert!(self.ended, "only frames that were handed out are settled");
                continue;
            };
            match outcome {
                Settled::Stored => {}
                Settled::Refused(why) => {
                    let again = !matches!(why, Nack::TooLarge | Nack::ClientIdChanged);
                    self.abandon_waiting(again.then_some(seq));
                }
                Settled::Unknown => self.ended = true,
            }
        }
    }

    /// A frame failed: the frames behind it are to be sent again, whatever the log makes of them.
    fn abandon_waiting(&mut self, failed: Option<u64>) {
        let mut again: VecDeque<u64> = failed.into_iter().collect();
        again.extend(self.replies.refuse_waiting(Nack::Behind));
        self.abandoned += again.len() - usize::from(failed.is_some());
        again.append(&mut self.owed);
        self.owed = again;
        self.failures += 1;
    }

    /// The input ended.
    pub(crate) fn end_of_input(&mut self) {
        if self.partial && !self.ended {
            self.close(Closing::BadFrame);
        }
        self.ended = true;
    }

    /// Closes the connection once everything before is answered.
    pub(crate) fn close(&mut self, why: Closing) {
        if !self.ended {
            self.ended = true;
            self.partial = false;
            self.replies.push(Reply::Close(why));
        }
    }

    fn has_capacity(&self) -> bool {
        self.replies.pending() < self.limits.announced.window && self.replies.waiting_bytes() < self.limits.window_bytes
    }

    /// Replies to be sent; the caller takes them out.
    pub(crate) fn replies(&mut self) -> &mut Vec<u8> {
        self.replies.written()
    }

    /// What was counted since the last call.
    pub(crate) fn take_counts(&mut self) -> Counts {
        self.replies.take_counts()
    }

    /// Whether more input would be read.
    pub(crate) fn reads(&self) -> bool {
        !self.ended && self.has_capacity()
    }

    /// Whether a frame or line has begun and not ended.
    pub(crate) fn is_partial(&self) -> bool {
        self.partial
    }

    /// Whether replies are still to come.
    pub(crate) fn owes_replies(&self) -> bool {
        self.replies.pending() > 0
    }

    /// Whether no input is read any more and every reply is written.
    pub(crate) fn is_done(&self) -> bool {
        self.ended && self.replies.pending() == 0
    }

    /// Counts what was read to its end, so that one slow frame differs from many.
    pub(crate) fn items(&self) -> u64 {
        self.items
    }

    /// How often a frame failed. Frames after a failure do not continue the series of those before.
    pub(crate) fn failures(&self) -> u64 {
        self.failures
    }
}
