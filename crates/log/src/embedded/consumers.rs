//! What the consumers in this process still need: retention stops there.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use millrace_contracts::Topic;

/// What each consumer needs of each partition. A consumer that has not read its position yet needs everything; one that has
/// ended keeps its entry, since it may start again.
#[derive(Default)]
pub(super) struct Consumers(Mutex<BTreeMap<(String, &'static str), Vec<Need>>>);

/// What a consumer needs of one partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Need {
    /// The offset that it reads next: without the record there it is lost.
    pub(super) position: u64,
    /// The offset from which it replays after a restart, at most `position`: without the records there it remembers less.
    pub(super) replay: u64,
}

impl Need {
    /// That of a consumer that replays nothing.
    pub(super) fn at(position: u64) -> Self {
        Self { position, replay: position }
    }
}

impl Consumers {
    /// Registers a consumer, before it reads its positions. One that starts again may read others than it had: the copy of a
    /// backup is behind.
    pub(super) fn register(&self, role: &str, topic: Topic, partitions: u32) {
        self.lock().insert((role.to_owned(), topic.name), vec![Need::default(); partitions as usize]);
    }

    /// Records what a registered consumer needs of a partition.
    pub(super) fn needs(&self, role: &str, topic: Topic, partition: u32, need: Need) {
        let mut consumers = self.lock();
        let needs = consumers.iter_mut().find(|((of, name), _)| of == role && *name == topic.name);
        if let Some(known) = needs.and_then(|(_, needs)| needs.get_mut(partition as usize)) {
            *known = need;
        }
    }

    /// Whether any consumer registered: a process without consumers does not know what others need.
    pub(super) fn any(&self) -> bool {
        !self.lock().is_empty()
    }

    /// The lowest offsets that consumers need of a partition, and the role with the lowest position; `None` if nobody
    /// consumes the topic.
    pub(super) fn lowest(&self, topic: Topic, partition: u32) -> Option<(Need, String)> {
        let consumers = self.lock();
        let of_topic = consumers.iter().filter(|((_, name), _)| *name == topic.name);
        let needs: Vec<(Need, &String)> =
            of_topic.filter_map(|((role, _), needs)| Some((*needs.get(partition as usize)?, role))).collect();
        let (Need { position, .. }, role) = needs.iter().min()?;
        let replay = needs.iter().map(|(need, _)| need.replay).min()?;
        Some((Need { position: *position, replay }, (*role).clone()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, &'static str), Vec<Need>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_that_starts_again_needs_everything_until_it_has_its_position() {
        let consumers = Consumers::default();
        let lowest = || consumers.lowest(Topic::HOURLY, 1).map(|(need, _)| need);
        assert_eq!(lowest(), None);
        consumers.register("sink", Topic::HOURLY, 2);
        assert_eq!(lowest(), Some(Need::at(0)));
        consumers.needs("sink", Topic::HOURLY, 1, Need::at(9));
        assert_eq!(lowest(), Some(Need::at(9)));
        consumers.register("sink", Topic::HOURLY, 2);
        assert_eq!(lowest(), Some(Need::at(0)));
    }
}
