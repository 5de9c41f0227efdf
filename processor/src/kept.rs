//! What `analytics.state` holds of an hour's users: a snapshot, and the deltas since. Decides when a new snapshot is worth
//! its bytes.

use millrace_contracts::{Hour, StateKey, Topic, UserSketch};
use millrace_log::Step;

use crate::config::Bounds;

/// The records that stand in the log for an hour's users.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// The `seq` of each delta, and how many users they hold together.
    pub(crate) deltas: Vec<u64>,
    pub(crate) delta_users: u64,
    pub(crate) snapshot: Option<Snapshot>,
    /// A snapshot was taken when the hour was over.
    pub(crate) closed: bool,
    /// It tells the users of a set that is a sketch by now.
    pub(crate) of_set: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot {
    pub(crate) offset: u64,
    pub(crate) chunks: u32,
    pub(crate) users: u64,
    pub(crate) sketch: bool,
}

impl Snapshot {
    /// What a snapshot of a sketch weighs, in users: its bytes by 8.
    pub(crate) const SKETCH_USERS: u64 = UserSketch::REGISTERS as u64 / 8;
}

impl Kept {
    /// Takes note of a delta that was read back.
    pub(crate) fn read_delta(&mut self, seq: u64, users: u64) {
        self.deltas.push(seq);
        self.delta_users += users;
    }

    /// Takes note of a part of a snapshot that was read back. Only the newest counts.
    pub(crate) fn read_snapshot(&mut self, part: Snapshot) {
        match &mut self.snapshot {
            Some(newer) if newer.offset > part.offset => {}
            Some(same) if same.offset == part.offset => {
                same.chunks = same.chunks.max(part.chunks);
                same.users += part.users;
            }
            older => *older = Some(part),
        }
    }

    /// After everything was read back: deltas that a snapshot replaced have their tombstones already.
    pub(crate) fn read(&mut self, closed: bool, sketch: bool) {
        self.deltas.sort_unstable();
        self.deltas.dedup();
        let replaced = self.snapshot.map_or(0, |snapshot| self.deltas.partition_point(|&seq| seq <= snapshot.offset));
        let all = self.deltas.len().max(1) as u64;
        // Which of the users were in those is not known: their share is.
        self.delta_users = self.delta_users * (all - replaced as u64) / all;
        self.deltas.drain(..replaced);
        self.closed = closed && self.snapshot.is_some();
        self.of_set = sketch && self.snapshot.is_none_or(|snapshot| !snapshot.sketch);
    }

    /// Whether a snapshot should replace what there is. `closed`: the hour is over.
    pub(crate) fn is_due(&self, closed: bool, bounds: &Bounds) -> bool {
        let deltas = self.deltas.len();
        let grown = self.snapshot.is_none_or(|snapshot| self.delta_users * 2 >= snapshot.users);
        let parts = deltas + usize::from(self.snapshot.is_some());
        self.of_set
            || (deltas >= bounds.merge_deltas && grown)
            || deltas >= bounds.merge_anyway
            || (closed && !self.closed && deltas > 0 && parts > 1)
    }

    /// Writes tombstones for all of it.
    pub(crate) fn delete(&self, hour: Hour, partition: u32, step: &mut Step) {
        for &seq in &self.deltas {
            step.delete(Topic::STATE, partition, StateKey::Users { hour, partition, seq });
        }
        if let Some(Snapshot { offset, chunks, .. }) = self.snapshot {
            for chunk in 0..chunks {
                step.delete(Topic::STATE, partition, StateKey::Snapshot { hour, partition, snapshot: offset, chunk });
            }
        }
    }
}
