//! One connection: reads and appends what the session takes, and sends its replies.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, BytesMut};
use millrace_contracts::{IntakeMessage, Sender, Topic, UserHash, partition_of};
use millrace_log::{NewRecord, RefusalCause};
use millrace_service::net::{Connection as _, Order, OrderCell};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::admission::{Admission, Revocation};
use super::handle::TcpConnection;
use super::intake::TcpIntake;
use super::metrics;
use super::replies::Settled;
use super::reply::{Closing, Nack};
use super::round::{Round, next_outcomes};
use super::series::FrameSeries;
use super::session::{Frame, Session};

/// Room for one read.
const READ: usize = 64 << 10;
/// Pause before frames that found the log's queue full are offered again.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);
/// After so long with a full queue, frames are refused.
const QUEUE_PATIENCE: Duration = Duration::from_secs(10);
/// Longest time that nothing is read because the sender has used more than its limits; beyond it, frames are refused.
const RATE_PATIENCE: Duration = Duration::from_secs(10);
/// What is read and thrown away of a connection that is closed with input unread: a reset would destroy the last reply.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// Frames that found the log's queue full. Nothing is read until they are in.
struct Held {
    frames: Vec<Frame>,
    bytes: BytesMut,
    since: Instant,
}

/// Ended without a last reply.
struct Cut(&'static str);

/// Serves a connection to its end.
pub(crate) async fn drive(mut stream: TcpStream, peer: IpAddr, intake: &TcpIntake, connection: Arc<TcpConnection>) {
    let admission = Admission::new(intake.auth.clone(), peer);
    let mut driver = Driver::new(&stream, intake, &connection, admission);
    let ended = driver.run().await;
    let ended_by_client = driver.end_of_input;
    driver.report();
    drop(driver);
    match ended {
        Ok(()) => linger(&mut stream, ended_by_client).await,
        Err(Cut(reason)) => metrics::closed(reason),
    }
}

async fn linger(stream: &mut TcpStream, ended_by_client: bool) {
    if stream.shutdown().await.is_err() || ended_by_client {
        return;
    }
    let drain = async {
        let (mut left, mut scrap) = (LINGER_BYTES, vec![0; 8 << 10]);
        while left > 0 {
            match stream.read(&mut scrap).await {
                Ok(read) if read > 0 => left = left.saturating_sub(read),
                _ => return,
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, drain).await;
}

struct Driver<'a> {
    stream: &'a TcpStream,
    intake: &'a TcpIntake,
    connection: &'a TcpConnection,
    session: Session,
    input: BytesMut,
    end_of_input: bool,
    output: Vec<u8>,
    /// Bytes of `output` that are sent.
    sent: usize,
    rounds: VecDeque<Round>,
    held: Option<Held>,
    /// Until when nothing is read, since the sender has used more than its limits.
    paused_until: Option<Instant>,
    series: FrameSeries,
    /// When input came last, or reading went on.
    active: Instant,
    /// Since when a frame has begun and not ended.
    partial_since: Option<Instant>,
    /// Since when the client takes no replies.
    blocked_since: Option<Instant>,
    items: u64,
}

impl<'a> Driver<'a> {
    fn new(stream: &'a TcpStream, intake: &'a TcpIntake, connection: &'a TcpConnection, admission: Admission) -> Self {
        Self {
            stream,
            intake,
            connection,
            session: Session::new(intake.config.session_limits(), admission),
            input: BytesMut::new(),
            end_of_input: false,
            output: Vec::new(),
            sent: 0,
            rounds: VecDeque::new(),
            held: None,
            paused_until: None,
            series: FrameSeries::new(),
            active: Instant::now(),
            partial_since: None,
            blocked_since: None,
            items: 0,
        }
    }

    async fn run(&mut self) -> Result<(), Cut> {
        let limits = &self.intake.config.limits;
        let shortest = limits.idle_timeout.min(limits.frame_timeout).min(limits.write_timeout).0;
        let pace = shortest / 8;
        let mut tick = pin!(tokio::time::sleep(pace));
        let (stream, connection) = (self.stream, self.connection);
        let mut order = Order::Run;
        let mut revocation = Revocation::default();
        loop {
            self.take_in();
            self.send()?;
            if self.session.is_done() && self.output.is_empty() {
                return Ok(());
            }
            let reads = self.reads();
            self.follow_clock(reads);
            self.shrink();
            revocation.follow(self.session.admission());
            tokio::select! {
                biased;
                new = next_order(connection.order(), order) => match new {
                    Order::Run => {}
                    Order::Drain => {
                        order = new;
                        self.session.close(Closing::ShuttingDown);
                    }
                    Order::Cut => return Err(Cut("evicted")),
                },
                () = revocation.next() => self.session.close(Closing::Unauthenticated),
                outcomes = next_outcomes(&mut self.rounds), if !self.rounds.is_empty() => self.settle(outcomes),
                writable = stream.writable(), if !self.output.is_empty() => writable.map_err(|_| Cut("reset"))?,
                readable = stream.readable(), if reads => {
                    readable.map_err(|_| Cut("reset"))?;
                    self.read()?;
                }
                () = tokio::time::sleep(QUEUE_PAUSE), if self.held.is_some() => self.offer_again(),
                () = sleep_until(self.paused_until), if self.paused_until.is_some() => {}
                () = &mut tick => {
                    tick.as_mut().reset(tokio::time::Instant::now() + pace);
                    self.check_clock(reads)?;
                }
            }
        }
    }

    fn reads(&self) -> bool {
        let backlog = usize::try_from(self.intake.config.limits.max_reply_bytes.0).unwrap_or(usize::MAX);
        !self.end_of_input && !self.is_paused() && self.session.reads() && self.output.len() - self.sent < backlog
    }

    /// Whether frames have to wait before others are taken.
    fn is_paused(&self) -> bool {
        self.held.is_some() || self.paused_until.is_some()
    }

    fn read(&mut self) -> Result<(), Cut> {
        self.input.reserve(READ);
        match self.stream.try_read_buf(&mut self.input) {
            Ok(0) => self.end_of_input = true,
            Ok(_) => self.active = Instant::now(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return Err(Cut("reset")),
        }
        Ok(())
    }

    /// Hands what was read to the session, and the frames to the log.
    fn take_in(&mut self) {
        loop {
            let wait = self.session.admission().wait();
            self.paused_until = (!wait.is_zero() && wait <= RATE_PATIENCE).then(|| Instant::now() + wait);
            if self.is_paused() {
                break;
            }
            let limited = (!wait.is_zero()).then_some(Nack::RateLimited);
            self.session.set_gate(self.intake.is_lagging().then_some(Nack::JournalLagging).or(limited));
            let mut frames = Vec::new();
            let used = self.session.receive(&self.input, &mut frames);
            if !frames.is_empty() {
                let bytes = frames.iter().map(|frame| frame.payload.len()).sum();
                self.session.admission().charge(frames.len(), bytes);
                let input = std::mem::take(&mut self.input);
                let appended = self.append(&frames, &input);
                if appended < frames.len() {
                    frames.drain(..appended);
                    self.held = Some(Held { frames, bytes: input.clone(), since: Instant::now() });
                }
                self.input = input;
            }
            self.input.advance(used);
            if used == 0 {
                break;
            }
        }
        if self.end_of_input && !self.is_paused() && self.session.reads() {
            self.session.end_of_input();
        }
        let items = self.session.items();
        if !self.session.is_partial() {
            self.partial_since = None;
        } else if self.partial_since.is_none() || items != self.items {
            self.partial_since = Some(Instant::now());
        }
        self.items = items;
    }

    /// Appends frames whose payloads stand in `bytes`; returns how many of them the log's queue took.
    fn append(&mut self, frames: &[Frame], bytes: &[u8]) -> usize {
        let Some(client) = self.session.client() else { return 0 };
        let sender =
            Sender { principal: self.session.admission().principal(), client: &client.id, epoch: client.epoch };
        let (nonce, first) = self.series.number(frames.len(), self.session.failures(), !self.rounds.is_empty());
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let received_at_us = i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX);
        let payloads: usize = frames.iter().map(|frame| frame.payload.len()).sum();
        let mut values = Vec::with_capacity(payloads + frames.len() * (client.id.len() + 64));
        let mut ends = Vec::with_capacity(frames.len());
        for (index, frame) in (first..).zip(frames) {
            let payload = &bytes[frame.payload.clone()];
            let crc32c = crc32c::crc32c(payload);
            IntakeMessage { sender, seq: frame.seq, nonce, index, received_at_us, crc32c, payload }.encode(&mut values);
            ends.push(values.len());
        }
        let partition = partition_of(UserHash::of(sender.client), self.intake.partitions);
        let mut start = 0;
        let record = |&end: &usize| {
            let value = &values[std::mem::replace(&mut start, end)..end];
            NewRecord { topic: Topic::INTAKE, partition, key: sender.client.as_bytes(), value }
        };
        let records: Vec<NewRecord<'_>> = ends.iter().map(record).collect();
        let receipts = self.intake.log.append_replicated(&records);
        let full = |&index: &usize| receipts.refused(index) == Some(RefusalCause::Full);
        let appended = (0..frames.len()).find(full).unwrap_or(frames.len());
        if appended < frames.len() {
            self.series.end();
        }
        if appended > 0 {
            self.rounds.push_back(Round::Appended { receipts, frames: appended });
        }
        appended
    }

    /// Offers the frames again that found the log's queue full.
    fn offer_again(&mut self) {
        let Some(mut held) = self.held.take() else { return };
        let appended = self.append(&held.frames, &held.bytes);
        held.frames.drain(..appended);
        if held.frames.is_empty() {
            return;
        }
        if appended > 0 {
            held.since = Instant::now();
        }
        if held.since.elapsed() > QUEUE_PATIENCE {
            self.rounds.push_back(Round::Refused { frames: held.frames.len(), cause: RefusalCause::Full });
        } else {
            self.held = Some(held);
        }
    }

    fn settle(&mut self, outcomes: Vec<Settled>) {
        let failures = self.session.failures();
        self.session.settle(outcomes);
        // Frames behind one that failed are answered already; the session expects their outcomes all the same.
        if self.session.failures() != failures
            && let Some(held) = self.held.take()
        {
            self.rounds.push_back(Round::Refused { frames: held.frames.len(), cause: RefusalCause::Full });
        }
    }

    fn send(&mut self) -> Result<(), Cut> {
        let replies = self.session.replies();
        if self.output.is_empty() {
            std::mem::swap(&mut self.output, replies);
        } else {
            self.output.append(replies);
        }
        while self.sent < self.output.len() {
            match self.stream.try_write(&self.output[self.sent..]) {
                Ok(sent) => {
                    self.sent += sent;
                    self.blocked_since = None;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked_since.get_or_insert_with(Instant::now);
                    return Ok(());
                }
                Err(_) => return Err(Cut("reset")),
            }
        }
        self.output.clear();
        self.sent = 0;
        self.report();
        Ok(())
    }

    fn report(&mut self) {
        self.intake.metrics.count(&self.session.take_counts());
    }

    /// Times stand still while nothing is read or replies are owed.
    fn follow_clock(&mut self, reads: bool) {
        let owes = self.session.owes_replies();
        if !reads || owes {
            self.active = Instant::now();
            if self.partial_since.is_some() {
                self.partial_since = Some(self.active);
            }
        }
        let busy = owes || self.session.is_partial() || self.held.is_some() || !self.output.is_empty();
        self.connection.set_idle((!busy).then_some(self.active));
    }

    fn check_clock(&mut self, reads: bool) -> Result<(), Cut> {
        let limits = &self.intake.config.limits;
        if self.blocked_since.is_some_and(|since| since.elapsed() >= limits.write_timeout.0) {
            return Err(Cut("write-timeout"));
        }
        if !reads || self.session.owes_replies() {
            return Ok(());
        }
        if self.partial_since.is_some_and(|since| since.elapsed() >= limits.frame_timeout.0) {
            self.session.close(Closing::Partial);
        } else if self.partial_since.is_none() && self.active.elapsed() >= limits.idle_timeout.0 {
            self.session.close(Closing::Idle);
        }
        Ok(())
    }

    /// A connection that waits holds no more memory than what it has not handed on.
    fn shrink(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        } else if self.input.capacity() > 8 * self.input.len() {
            self.input = BytesMut::from(&self.input[..]);
        }
        if self.output.is_empty() && self.output.capacity() > READ {
            self.output = Vec::new();
        }
    }
}

async fn sleep_until(end: Option<Instant>) {
    if let Some(end) = end {
        tokio::time::sleep_until(end.into()).await;
    }
}

/// An order other than the last one.
async fn next_order(cell: &OrderCell, last: Order) -> Order {
    poll_fn(|cx| match cell.get(cx.waker()) {
        order if order == last => Poll::Pending,
        order => Poll::Ready(order),
    })
    .await
}
