//! One partition that this process coordinates: the fold, and what only memory holds: the ring, leases, waiting requests.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use millrace_contracts::topics::{Change, Head, Name, SettledRange};
use millrace_contracts::{Code, Refusal};
use tokio::sync::{Notify, mpsc, oneshot};

use super::fold::{Fold, Outcome};
use super::keyed::Keyed;
use super::polls::Polls;
use super::pushing::{Pushing, SubscriptionKey};
use crate::lease::Leases;
use crate::ring::{Ring, Stored};
use crate::walk::Point;

/// How long a request waits until its command is read back.
const READ_BACK: Duration = Duration::from_secs(20);
/// Most commands that wait to be appended.
const MAX_SUBMISSIONS: usize = 16_384;
/// Most chunks of a partition in memory.
const MAX_CHUNKS: usize = 64;

/// One partition.
#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) partition: u32,
    inner: Mutex<Inner>,
    submissions: mpsc::Sender<Submission>,
    /// Taken by the task that appends.
    pub(crate) submitted: Mutex<Option<mpsc::Receiver<Submission>>>,
    /// An append's outcome is unknown: the coordinator opens anew.
    pub(crate) reopen: AtomicBool,
    /// The fold moved, or the ring did.
    pub(crate) moved: Notify,
}

/// A command on its way to the log.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) topic: Option<Name>,
    pub(crate) subscription: Option<Name>,
    pub(crate) change: Change,
    pub(crate) reply: oneshot::Sender<Result<Outcome, Refusal>>,
}

/// What the mutex guards.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) fold: Fold,
    /// The nonce of this coordinator, once it has opened.
    pub(crate) nonce: Option<u64>,
    /// The nonce that it opens with.
    pub(crate) opening: Option<u64>,
    pub(crate) waiting: HashMap<(u64, u64), oneshot::Sender<Result<Outcome, Refusal>>>,
    /// The newest messages; `None` until the coordinator is in force.
    pub(crate) ring: Option<Ring>,
    /// Heads newer than those of the fold.
    pub(crate) heads: HashMap<Name, Head>,
    /// Of the subscriptions of which memory holds something.
    pub(crate) readings: HashMap<SubscriptionKey, Reading>,
    /// Subscriptions whose reading got a chunk, the oldest one first; it may have gone meanwhile.
    chunked: VecDeque<SubscriptionKey>,
    pub(crate) polls: Polls,
    pub(crate) leases: u64,
    /// The next offset of `topics.commands` to fold, and the highest it ever was: lower after a step was taken back.
    pub(crate) folded: (u64, u64),
    /// Messages with an idempotency key, and publishes that wait until the ring has read them.
    pub(crate) keyed: Keyed,
    /// The endpoints of push subscriptions.
    pub(crate) push: Pushing,
    /// The coordinator that the ring read last in `messages`.
    pub(crate) ring_nonce: Option<u64>,
    /// Why the partition is not taken over, if a person has to decide.
    pub(crate) refused: Option<String>,
    closed: bool,
}

/// What only memory holds of a subscription that is read.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Offset of the command that created the subscription, and the cursor's epoch.
    pub(crate) of: (u64, u64),
    pub(crate) leases: Leases,
    /// Where the next walk may begin.
    pub(crate) frontier: Option<Point>,
    /// Messages from behind the ring.
    pub(crate) chunk: Option<Chunk>,
    /// The message that a call of the earlier system handed out last, until it is acknowledged.
    pub(crate) current: Option<CurrentMessage>,
}

impl Reading {
    /// Ends the leases that are over: their messages are looked at again.
    pub(crate) fn expire(&mut self, now_ms: i64) {
        if self.leases.expire(now_ms) {
            self.frontier = None;
        }
    }

    /// Whether a fresh one would serve as well, with everything up to `floor` settled.
    fn is_idle(&self, floor: i64) -> bool {
        self.leases.is_empty()
            && self.current.is_none()
            && self.frontier.is_none_or(|frontier| frontier.at <= floor)
            && self.chunk.as_ref().is_none_or(|chunk| chunk.until <= floor.saturating_add(1))
    }
}

/// A message that a call of the earlier system handed out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CurrentMessage {
    pub(crate) range: SettledRange,
    /// Its size, as the earlier system counted it.
    pub(crate) bytes: u64,
}

/// What is known of the coordinator in force at an offset of `messages`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InForce {
    /// Nothing: a scan begins earlier, to meet its opening.
    Unread,
    /// Its nonce, if an opening was met.
    Read(Option<u64>),
}

/// A topic's messages of a range of offsets, read from the log.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The first offset that it covers.
    pub(crate) from: i64,
    /// The offset behind the last one that it covers.
    pub(crate) until: i64,
    pub(crate) messages: Vec<Arc<Stored>>,
    /// The coordinator in force behind it.
    pub(crate) in_force: InForce,
}

impl Shard {
    /// `hosts_events`: the topic of events is in this partition.
    pub(crate) fn new(partition: u32, hosts_events: bool) -> Arc<Self> {
        let (submissions, submitted) = mpsc::channel(MAX_SUBMISSIONS);
        let inner = Inner {
            fold: Fold::new(partition).hosting_events(hosts_events),
            nonce: None,
            opening: None,
            waiting: HashMap::new(),
            ring: None,
            heads: HashMap::new(),
            readings: HashMap::new(),
            chunked: VecDeque::new(),
            polls: Polls::default(),
            leases: 0,
            folded: (0, 0),
            keyed: Keyed::default(),
            push: Pushing::default(),
            ring_nonce: None,
            refused: None,
            closed: false,
        };
        Arc::new(Self {
            partition,
            inner: Mutex::new(inner),
            submissions,
            submitted: Mutex::new(Some(submitted)),
            reopen: AtomicBool::new(false),
            moved: Notify::new(),
        })
    }

    /// The state. Nothing awaits and nothing panics while it is held.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it is held")
    }

    /// The partition goes to another coordinator: waiting requests end, and none is taken any more.
    pub(crate) fn close(&self) {
        let waiting = {
            let mut inner = self.lock();
            inner.closed = true;
            inner.polls.wake_all();
            inner.push.wake();
            std::mem::take(&mut inner.waiting)
        };
        for (_, reply) in waiting {
            let _ = reply.send(Err(unknown()));
        }
        self.moved.notify_waiters();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Appends a command and waits until the fold has read it back.
    pub(crate) async fn submit(
        &self,
        topic: Option<&Name>,
        subscription: Option<&Name>,
        change: Change,
    ) -> Result<Outcome, Refusal> {
        let (reply, outcome) = oneshot::channel();
        let submission = Submission { topic: topic.cloned(), subscription: subscription.cloned(), change, reply };
        self.submissions.try_send(submission).map_err(|_| {
            Refusal::new(Code::Overloaded, "too many changes of topics wait for the log")
                .retry_after(Duration::from_secs(1))
        })?;
        match tokio::time::timeout(READ_BACK, outcome).await {
            Ok(Ok(Ok(Outcome::Refused(refusal)))) => Err(refusal),
            Ok(Ok(result)) => result,
            Ok(Err(_)) | Err(_) => Err(unknown()),
        }
    }

    /// The outcome of an append under this nonce is unknown: what waits for it ends, and the coordinator opens anew.
    pub(crate) fn lost(&self) {
        self.reopen.store(true, Ordering::Release);
        self.moved.notify_waiters();
    }
}

impl Inner {
    /// Whether this coordinator is in force and may answer.
    pub(crate) fn serves(&self) -> bool {
        let in_force = self.nonce.is_some() && self.fold.nonce() == self.nonce;
        // After a step was taken back an answer could show what an acknowledgement had settled.
        !self.closed && self.ring.is_some() && in_force && self.is_whole()
    }

    /// Whether the fold has everything that it ever had: a step that was taken back is applied again.
    pub(crate) fn is_whole(&self) -> bool {
        self.folded.0 == self.folded.1
    }

    /// The newest message of a topic.
    pub(crate) fn head(&self, name: &Name) -> Head {
        let folded = self.fold.topic(name).map(|topic| topic.head).unwrap_or_default();
        self.heads.get(name).copied().filter(|head| head.offset > folded.offset).unwrap_or(folded)
    }

    /// Keeps a chunk for the next pulls of a subscription; few at a time, so that many laggards do not fill the memory.
    pub(crate) fn keep_chunk(&mut self, topic: &Name, subscription: &Name, chunk: Chunk) {
        let Some(reading) = self.reading(topic, subscription) else { return };
        reading.chunk = Some(chunk);
        let key = (topic.clone(), subscription.clone());
        self.chunked.retain(|kept| *kept != key);
        self.chunked.push_back(key);
        if self.chunked.len() > MAX_CHUNKS
            && let Some(oldest) = self.chunked.pop_front()
            && let Some(reading) = self.readings.get_mut(&oldest)
        {
            reading.chunk = None;
        }
    }

    /// Forgets what memory holds of a subscription if it means nothing more: most of very many are read now and then.
    pub(crate) fn release(&mut self, topic: &Name, subscription: &Name) {
        let found = self.fold.topic(topic).and_then(|topic| topic.subscription(subscription));
        let floor = found.map(|found| found.cursor.floor);
        let key = (topic.clone(), subscription.clone());
        let is_idle = |reading: &Reading| floor.is_none_or(|floor| reading.is_idle(floor));
        if self.readings.get(&key).is_some_and(is_idle) {
            self.readings.remove(&key);
        }
    }

    /// The subscription was deleted.
    pub(crate) fn forget(&mut self, key: &SubscriptionKey) {
        self.readings.remove(key);
        self.push.remove(key);
    }

    /// The topic was deleted: another of its name has none of its messages.
    pub(crate) fn forget_topic(&mut self, topic: &Name) {
        if let Some(ring) = &mut self.ring {
            ring.forget(topic);
        }
        self.heads.remove(topic);
    }

    /// Wakes the long polls of a topic, and its push subscriptions.
    pub(crate) fn wake(&mut self, topic: &Name) {
        if self.fold.has_pushed(topic) {
            self.push.touch(topic);
        }
        self.polls.wake(topic);
    }

    /// Wakes the long polls of one subscription, or its push: a topic may have very many others.
    pub(crate) fn wake_one(&mut self, topic: &Name, subscription: &Name) {
        if self.fold.is_pushed(topic, subscription) || self.push.endpoint(topic, subscription).is_some() {
            self.push.touch_one((topic.clone(), subscription.clone()));
        }
        self.polls.wake_one(topic, subscription);
    }

    /// What memory holds of a subscription; begun anew after a seek or another creation.
    pub(crate) fn reading(&mut self, topic: &Name, subscription: &Name) -> Option<&mut Reading> {
        let found = self.fold.topic(topic)?.subscription(subscription)?;
        let of = (found.meta.created, found.cursor.epoch);
        let fresh = || Reading { of, leases: Leases::default(), frontier: None, chunk: None, current: None };
        let reading = self.readings.entry((topic.clone(), subscription.clone())).or_insert_with(fresh);
        if reading.of != of {
            *reading = fresh();
        }
        Some(reading)
    }
}

pub(crate) fn unknown() -> Refusal {
    Refusal::new(Code::OutcomeUnknown, "the change may or may not take effect; read the state, or send it again")
}

pub(crate) fn moved() -> Refusal {
    Refusal::new(Code::Unavailable, "the topic's coordinator is moving").retry_after(Duration::from_secs(1))
}
