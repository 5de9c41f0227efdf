//! One connection: reads and appends what the session takes, and sends its replies.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Buf as _, BytesMut};
use millrace_contracts::{IntakeMessage, Sender, Topic, UserHash, partition_of};
use millrace_log::{NewRecord, RefusalCause};
use millrace_service::net::{Connection as _, Order, OrderCell, Socket};

use super::admission::{Admission, Revocation};
use super::handle::TcpConnection;
use super::intake::TcpIntake;
use super::metrics;
use super::replies::Settled;
use super::reply::{Closing, Nack};
use super::round::{Round, next_outcomes};
use super::series::FrameSeries;
use super::session::{Frame, Session};
use super::wire::{Event, Wire};

/// Pause before frames that found the log's queue full are offered again.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);
/// After so long with a full queue, frames are refused.
const QUEUE_PATIENCE: Duration = Duration::from_secs(10);
/// Longest time that nothing is read because the sender has used more than its limits; beyond it, frames are refused.
const RATE_PATIENCE: Duration = Duration::from_secs(10);

/// Frames that found the log's queue full. Nothing is read until they are in.
struct Held {
    frames: Vec<Frame>,
    bytes: BytesMut,
    since: Instant,
}

/// Ended without a last reply.
struct Cut(&'static str);

/// Serves a connection to its end.
pub(crate) async fn drive(socket: Socket, admission: Admission, intake: &TcpIntake, connection: Arc<TcpConnection>) {
    let mut driver = Driver::new(Wire::new(socket), intake, &connection, admission);
    let ended = driver.run().await;
    driver.report();
    let Driver { wire, end_of_input, .. } = driver;
    match ended {
        Ok(()) => wire.close(end_of_input).await,
        Err(Cut(reason)) => metrics::closed(reason),
    }
}

struct Driver<'a> {
    wire: Wire,
    intake: &'a TcpIntake,
    connection: &'a TcpConnection,
    session: Session,
    end_of_input: bool,
    rounds: VecDeque<Round>,
    held: Option<Held>,
    /// Until when nothing is read, since the sender has used more than its limits.
    paused_until: Option<Instant>,
    series: FrameSeries,
    /// When input came last, or reading went on.
    active: Instant,
    /// Since when a frame has begun and not ended.
    partial_since: Option<Instant>,
    items: u64,
}

impl<'a> Driver<'a> {
    fn new(wire: Wire, intake: &'a TcpIntake, connection: &'a TcpConnection, admission: Admission) -> Self {
        Self {
            wire,
            intake,
            connection,
            session: Session::new(intake.config.session_limits(), admission),
            end_of_input: false,
            rounds: VecDeque::new(),
            held: None,
            paused_until: None,
            series: FrameSeries::new(),
            active: Instant::now(),
            partial_since: None,
            items: 0,
        }
    }

    async fn run(&mut self) -> Result<(), Cut> {
        let limits = &self.intake.config.limits;
        let shortest = limits.idle_timeout.min(limits.frame_timeout).min(limits.write_timeout).0;
        let pace = shortest / 8;
        let mut tick = pin!(tokio::time::sleep(pace));
        let connection = self.connection;
        let mut order = Order::Run;
        let mut revocation = Revocation::default();
        loop {
            self.take_in();
            self.send().await?;
            if self.session.is_done() && self.wire.is_sent() {
                return Ok(());
            }
            let reads = self.reads();
            self.follow_clock(reads);
            self.wire.shrink();
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
                event = poll_fn(|cx| self.wire.poll(cx, reads)), if reads || !self.wire.is_sent() => match event {
                    Ok(Event::Read(0)) => self.end_of_input = true,
                    Ok(Event::Read(_)) => self.active = Instant::now(),
                    Ok(Event::Sent) => {}
                    Err(_) => return Err(Cut("reset")),
                },
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
        !self.end_of_input && !self.is_paused() && self.session.reads() && self.wire.backlog() < backlog
    }

    /// Whether frames have to wait before others are taken.
    fn is_paused(&self) -> bool {
        self.held.is_some() || self.paused_until.is_some()
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
            let used = self.session.receive(&self.wire.input, &mut frames);
            if !frames.is_empty() {
                let bytes = frames.iter().map(|frame| frame.payload.len()).sum();
                self.session.admission().charge(frames.len(), bytes);
                let input = std::mem::take(&mut self.wire.input);
                let appended = self.append(&frames, &input);
                if appended < frames.len() {
                    frames.drain(..appended);
                    self.held = Some(Held { frames, bytes: input.clone(), since: Instant::now() });
                }
                self.wire.input = input;
            }
            self.wire.input.advance(used);
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

    /// Sends what the client takes now.
    async fn send(&mut self) -> Result<(), Cut> {
        self.wire.push(self.session.replies());
        match poll_fn(|cx| Poll::Ready(self.wire.poll_send(cx))).await {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => self.report(),
            Poll::Ready(Err(_)) => return Err(Cut("reset")),
        }
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
        let busy = owes || self.session.is_partial() || self.held.is_some() || !self.wire.is_sent();
        self.connection.set_idle((!busy).then_some(self.active));
    }

    fn check_clock(&mut self, reads: bool) -> Result<(), Cut> {
        let limits = &self.intake.config.limits;
        if self.wire.blocked() >= limits.write_timeout.0 {
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
}

async fn sleep_until(end: Option<Instant>) {
    if let Some(end) = end {
        tokio::time::sleep_until(end.into()).await;
    }
}

/// An order other than the last one.
pub(super) async fn next_order(cell: &OrderCell, last: Order) -> Order {
    poll_fn(|cx| match cell.get(cx.waker()) {
        order if order == last => Poll::Pending,
        order => Poll::Ready(order),
    })
    .await
}
