//! Which messages of a subscription can be handed out now. Pure: state in, candidates out.

use std::sync::Arc;

use millrace_contracts::topics::{Cursor, SettledRange, SubscriptionSettings};

use crate::coordinator::fold::Subscription;
use crate::lease::Leases;
use crate::ring::Stored;

/// What decides beside the subscription's own state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules<'a> {
    pub(crate) settings: &'a SubscriptionSettings,
    /// The topic's delay, in ms.
    pub(crate) delay_ms: i64,
    /// The topic's retention, in ms.
    pub(crate) retention_ms: i64,
    pub(crate) now_ms: i64,
    /// Whether the messages are hidden from others.
    pub(crate) leased: bool,
}

/// A point of the walk: everything up to `at` was considered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    /// Everything up to this offset was considered.
    pub(crate) at: i64,
    /// Messages of the topic up to it.
    pub(crate) ordinal: u64,
    /// Where the range of the next message begins: behind the last message that was not passed over.
    pub(crate) after: (i64, u64),
}

impl Point {
    /// The beginning: the cursor's floor.
    pub(crate) fn of(cursor: &Cursor) -> Self {
        Self { at: cursor.floor, ordinal: cursor.floor_ordinal, after: (cursor.floor, cursor.floor_ordinal) }
    }
}

/// A message that can be handed out.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) stored: Arc<Stored>,
    pub(crate) range: SettledRange,
}

/// What a message is to a walk.
enum Verdict {
    /// It is settled, or hidden: the next range begins behind it.
    Behind,
    /// It waits for an older message of its key.
    Blocked,
    /// It is passed over: the next range covers it.
    Passed,
    /// It can be handed out.
    Candidate,
    /// It becomes visible at this time; what comes after it waits too.
    Later(i64),
}

/// A walk over a subscription's messages, in ascending order.
#[derive(Debug)]
pub(crate) struct Walk<'a> {
    subscription: &'a Subscription,
    leases: &'a Leases,
    rules: Rules<'a>,
    point: Point,
    /// Everything up to here needs no second look while nothing changes: settled, hidden or passed over.
    frontier: Point,
    /// Whether a message was met that is to be looked at again.
    stopped: bool,
    found: Vec<Candidate>,
    max: usize,
    bytes: usize,
    max_bytes: usize,
    /// When a message becomes visible that is not yet, ms since the epoch.
    pub(crate) visible_ms: Option<i64>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(
        subscription: &'a Subscription,
        leases: &'a Leases,
        rules: Rules<'a>,
        from: Point,
        max: usize,
        max_bytes: usize,
    ) -> Self {
        let found = Vec::new();
        Self {
            subscription,
            leases,
            rules,
            point: from,
            frontier: from,
            stopped: false,
            found,
            max,
            bytes: 0,
            max_bytes,
            visible_ms: None,
        }
    }

    /// The next offset that the walk wants to see.
    pub(crate) fn wants(&self) -> i64 {
        self.point.at + 1
    }

    /// How far the walk is.
    pub(crate) fn point(&self) -> Point {
        self.point
    }

    pub(crate) fn is_done(&self) -> bool {
        self.found.len() >= self.max || self.visible_ms.is_some() || self.bytes >= self.max_bytes
    }

    /// Considers the topic's next message. Messages come in ascending order, none left out.
    pub(crate) fn consider(&mut self, stored: &Arc<Stored>) {
        let verdict = self.verdict(stored);
        if let Verdict::Later(at) = verdict {
            self.visible_ms = Some(at);
            return;
        }
        let ordinal = stored.ordinal.max(self.point.ordinal);
        let end = (stored.offset, ordinal);
        let (offset, after) = (stored.offset, self.point.after);
        (self.point.at, self.point.ordinal) = end;
        match verdict {
            Verdict::Behind => self.point.after = end,
            Verdict::Blocked => {
                self.point.after = end;
                self.stopped = true;
            }
            Verdict::Passed | Verdict::Later(_) => {}
            Verdict::Candidate => {
                self.stopped = true;
                let (after, ordinal_after) = after;
                let range = SettledRange { after, ordinal_after, offset, ordinal };
                self.bytes += stored.value.len();
                self.found.push(Candidate { stored: stored.clone(), range });
                self.point.after = end;
            }
        }
        if !self.stopped {
            self.frontier = self.point;
        }
    }

    /// Nothing of the topic stands below this offset that was not considered.
    pub(crate) fn advance(&mut self, next: i64) {
        if next - 1 > self.point.at && !self.is_done() {
            self.point.at = next - 1;
            if !self.stopped {
                self.frontier = self.point;
            }
        }
    }

    fn verdict(&self, stored: &Stored) -> Verdict {
        let rules = &self.rules;
        if self.subscription.cursor.covers(stored.offset) || self.leases.holds(stored.offset) {
            return Verdict::Behind;
        }
        if stored.published_ms.saturating_add(rules.retention_ms) <= rules.now_ms {
            return Verdict::Passed;
        }
        let visible = stored.published_ms.saturating_add(rules.delay_ms);
        if rules.delay_ms > 0 && visible > rules.now_ms {
            return Verdict::Later(visible);
        }
        let Some(message) = stored.message() else { return Verdict::Passed };
        if let Some(filter) = &rules.settings.filter
            && !filter.matches(&message.attributes)
        {
            return Verdict::Passed;
        }
        if let Some(key) = stored.key_hash.filter(|_| rules.leased && rules.settings.by_key())
            && (self.subscription.retries.holds_key(key, stored.offset) || self.leases.blocks_key(key, stored.offset))
        {
            return Verdict::Blocked;
        }
        Verdict::Candidate
    }

    /// What can be handed out, and where the next walk may begin.
    pub(crate) fn finish(self) -> (Vec<Candidate>, Point) {
        (self.found, self.frontier)
    }
}
