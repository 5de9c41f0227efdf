//! The records of an hour's users in `analytics.state`: a snapshot and the deltas after it. Decides when a new snapshot is
//! worth its bytes.

use millrace_contracts::{Hour, StateKey, Topic, UserSketch};
use millrace_log::Step;

use crate::bounds::CountingBounds;

/// The live records of one hour's users in the log.
#[derive(Debug, Default)]
pub(crate) struct Changelog {
    /// The `seq` of each delta.
    pub(crate) deltas: Vec<u64>,
    /// The number of users in all deltas.
    pub(crate) delta_users: u64,
    pub(crate) snapshot: Option<Snapshot>,
    /// Whether the snapshot was written after the end of the hour.
    pub(crate) final_snapshot: bool,
    /// Whether the records list the users of a set that a sketch has replaced since.
    pub(crate) predates_sketch: bool,
}

/// One snapshot: a number of records that together contain every user of the hour at an input offset.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Snapshot {
    pub(crate) offset: u64,
    pub(crate) chunks: u32,
    pub(crate) users: u64,
    pub(crate) sketch: bool,
}

impl Snapshot {
    /// The size of a sketch's snapshot, in users of 8 bytes.
    pub(crate) const SKETCH_USERS: u64 = UserSketch::REGISTERS as u64 / 8;
}

impl Changelog {
    /// Adds a delta that was written or restored.
    pub(crate) fn add_delta(&mut self, seq: u64, users: u64) {
        self.deltas.push(seq);
        self.delta_users += users;
    }

    /// Adds a restored chunk of a snapshot. Only the newest snapshot counts.
    pub(crate) fn add_chunk(&mut self, chunk: Snapshot) {
        match &mut self.snapshot {
            Some(newer) if newer.offset > chunk.offset => {}
            Some(same) if same.offset == chunk.offset => {
                same.chunks = same.chunks.max(chunk.chunks);
                same.users += chunk.users;
            }
            older => *older = Some(chunk),
        }
    }

    /// Ends a restore: drops the deltas that the snapshot replaces, which have tombstones already.
    pub(crate) fn finish_restore(&mut self, closed: bool, sketch: bool) {
        self.deltas.sort_unstable();
        self.deltas.dedup();
        let replaced = self.snapshot.map_or(0, |snapshot| self.deltas.partition_point(|&seq| seq <= snapshot.offset));
        let all = self.deltas.len().max(1) as u64;
        // An estimate: the number of users per delta is not recorded.
        self.delta_users = self.delta_users * (all - replaced as u64) / all;
        self.deltas.drain(..replaced);
        self.final_snapshot = closed && self.snapshot.is_some();
        self.predates_sketch = sketch && self.snapshot.is_none_or(|snapshot| !snapshot.sketch);
    }

    /// Whether a new snapshot should replace these records. `closed`: the hour has ended.
    pub(crate) fn needs_snapshot(&self, closed: bool, bounds: &CountingBounds) -> bool {
        let deltas = self.deltas.len();
        let has_grown = self.snapshot.is_none_or(|snapshot| self.delta_users * 2 >= snapshot.users);
        let parts = deltas + usize::from(self.snapshot.is_some());
        self.predates_sketch
            || (deltas >= bounds.merge_deltas && has_grown)
            || deltas >= bounds.max_deltas
            || (closed && !self.final_snapshot && deltas > 0 && parts > 1)
    }

    /// Writes a tombstone for each record.
    pub(crate) fn write_tombstones(&self, hour: Hour, partition: u32, step: &mut Step) {
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
