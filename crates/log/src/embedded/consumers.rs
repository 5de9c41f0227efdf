//! What the consumers in this process still need: retention stops there.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use millrace_contracts::Topic;

/// The lowest offset of each partition that each consumer needs. A consumer that has not read its position yet needs
/// everything; one that has ended keeps its entry, since it may start again.
#[derive(Default)]
pub(super) struct Consumers(Mutex<BTreeMap<(String, &'static str), Vec<u64>>>);

impl Consumers {
    /// Registers a consumer, before it reads its positions.
    pub(super) fn register(&self, role: &str, topic: Topic, partitions: u32) {
        self.lock().entry((role.to_owned(), topic.name)).or_insert_with(|| vec![0; partitions as usize]);
    }

    /// Records the lowest offset that a registered consumer needs of a partition.
    pub(super) fn needs(&self, role: &str, topic: Topic, partition: u32, offset: u64) {
        let mut consumers = self.lock();
        let needed = consumers.iter_mut().find(|((of, name), _)| of == role && *name == topic.name);
        if let Some(offsets) = needed.map(|(_, offsets)| offsets)
            && let Some(needed) = offsets.get_mut(partition as usize)
        {
            *needed = offset;
        }
    }

    /// The lowest offset that any consumer needs of a partition, and its role; `None` if nobody consumes the topic.
    pub(super) fn lowest(&self, topic: Topic, partition: u32) -> Option<(u64, String)> {
        let consumers = self.lock();
        let of_topic = consumers.iter().filter(|((_, name), _)| *name == topic.name);
        let needs = of_topic.filter_map(|((role, _), offsets)| Some((*offsets.get(partition as usize)?, role.clone())));
        needs.min()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, &'static str), Vec<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
