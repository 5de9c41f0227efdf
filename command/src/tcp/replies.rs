//! The replies of one connection, in the order of what they answer: a place for each that is not written yet.

use std::collections::VecDeque;

use super::reply::{Announced, Closing, Nack, Reply};

/// How the append of one frame ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settled {
    /// Durable in the log.
    Stored,
    /// Not in the log.
    Refused(Nack),
    /// Perhaps in the log.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    Ready(Reply),
    /// A frame under way.
    Waiting {
        seq: u64,
        bytes: usize,
    },
}

/// Replies about frames since they were last taken.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) acked: u64,
    /// In the order of [`Nack::ALL`].
    pub(crate) refused: [u64; Nack::ALL.len()],
    pub(crate) unknown: u64,
    pub(crate) closed: Option<Closing>,
}

/// Replies of one connection. Each is written as soon as nothing before it is under way.
#[derive(Debug)]
pub(crate) struct Replies {
    announced: Announced,
    pending: VecDeque<Pending>,
    waiting: usize,
    waiting_bytes: usize,
    written: Vec<u8>,
    counts: Counts,
}

impl Replies {
    pub(crate) fn new(announced: Announced) -> Self {
        Self {
            announced,
            pending: VecDeque::new(),
            waiting: 0,
            waiting_bytes: 0,
            written: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Adds a reply.
    pub(crate) fn push(&mut self, reply: Reply) {
        if self.pending.is_empty() {
            self.write(reply);
        } else {
            self.pending.push_back(Pending::Ready(reply));
        }
    }

    /// Adds the place of the reply to a frame under way, whose payload has so many bytes.
    pub(crate) fn wait_for(&mut self, seq: u64, bytes: usize) {
        self.pending.push_back(Pending::Waiting { seq, bytes });
        self.waiting += 1;
        self.waiting_bytes += bytes;
    }

    /// Replies to the oldest frame under way, and returns its number; `None` without one. After [`Settled::Unknown`] no
    /// other reply follows.
    pub(crate) fn settle(&mut self, outcome: Settled) -> Option<u64> {
        // A reply before it would have been written.
        let Some(Pending::Waiting { seq, bytes }) = self.pending.pop_front() else { return None };
        self.waiting -= 1;
        self.waiting_bytes -= bytes;
        match outcome {
            Settled::Stored => self.write(Reply::Ack(seq)),
            Settled::Refused(why) => self.write(Reply::Nack(seq, why)),
            Settled::Unknown => {
                self.counts.unknown += 1 + self.waiting as u64;
                self.pending.clear();
                (self.waiting, self.waiting_bytes) = (0, 0);
            }
        }
        self.write_ready();
        Some(seq)
    }

    /// Refuses all frames under way, and returns their numbers.
    pub(crate) fn refuse_waiting(&mut self, why: Nack) -> Vec<u64> {
        let mut refused = Vec::with_capacity(self.waiting);
        for pending in &mut self.pending {
            if let Pending::Waiting { seq, .. } = *pending {
                refused.push(seq);
                *pending = Pending::Ready(Reply::Nack(seq, why));
            }
        }
        (self.waiting, self.waiting_bytes) = (0, 0);
        self.write_ready();
        refused
    }

    fn write_ready(&mut self) {
        while let Some(&Pending::Ready(reply)) = self.pending.front() {
            self.pending.pop_front();
            self.write(reply);
        }
    }

    fn write(&mut self, reply: Reply) {
        match reply {
            Reply::Ack(_) => self.counts.acked += 1,
            Reply::Nack(_, why) => self.counts.refused[why as usize] += 1,
            Reply::Close(why) => self.counts.closed = Some(why),
            Reply::Hello | Reply::Pong | Reply::Bye => {}
        }
        reply.write(&self.announced, &mut self.written);
    }

    /// Number of replies that are not written.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// Payload bytes of the frames under way.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Lines to be sent; the caller takes them out.
    pub(crate) fn written(&mut self) -> &mut Vec<u8> {
        &mut self.written
    }

    /// What was counted since the last call.
    pub(crate) fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }
}
