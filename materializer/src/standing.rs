//! Where a store is known to stand, and finding out that it does not any more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_store::HourlyStore;
use tokio::time::MissedTickBehavior;

/// The position of each partition as its store confirmed it last. Shared by the sinks of one store and those who watch.
#[derive(Debug, Clone, Default)]
pub struct Standing(Arc<Mutex<BTreeMap<u32, u64>>>);

impl Standing {
    /// The store said where a partition stands.
    pub(crate) fn confirm(&self, partition: u32, position: Option<u64>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match position {
            Some(position) => known.insert(partition, position),
            None => known.remove(&partition),
        };
    }

    fn of(&self, partition: u32) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).copied()
    }

    fn partitions(&self) -> Vec<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

/// Ends with the partition of which the store has less than it confirmed: it was flushed, restored from a backup, or failed
/// over to a replica that lagged. A sink notices that itself when it writes; this is for a log that is quiet, so that
/// readers do not wait for the next event.
///
/// `trouble` is told why the store cannot be asked, and `None` when it can.
pub(crate) async fn until_lost(
    mut store: impl HourlyStore,
    standing: &Standing,
    every: Duration,
    trouble: impl Fn(Option<String>),
) -> u32 {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for partition in standing.partitions() {
            let Some(known) = standing.of(partition) else { continue };
            match store.position(partition).await {
                // Known before the store was asked and known still, so no write of ours explains it.
                Ok(found) if found.is_none_or(|found| found < known) && standing.of(partition) == Some(known) => {
                    return partition;
                }
                Ok(_) => trouble(None),
                Err(error) => {
                    trouble(Some(error.to_string()));
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_contracts::{HourlyCount, ProjectionWrite, StoreError, WriteOutcome};
    use std::collections::VecDeque;

    /// Answers one question after the other.
    struct Says(VecDeque<Result<Option<u64>, StoreError>>);

    impl HourlyStore for Says {
        async fn position(&mut self, _partition: u32) -> Result<Option<u64>, StoreError> {
            self.0.pop_front().expect("asked too often")
        }
        async fn write(
            &mut self,
            _writes: &[ProjectionWrite<'_, [HourlyCount]>],
        ) -> Result<Vec<WriteOutcome>, StoreError> {
            unreachable!("never written to")
        }
    }

    #[tokio::test]
    async fn less_than_was_confirmed_is_a_loss() {
        let standing = Standing::default();
        standing.confirm(4, Some(7));
        let away = || Err(StoreError::retry("unreachable"));
        for lost in [None, Some(6)] {
            let store = Says([Ok(Some(7)), away(), Ok(Some(8)), Ok(lost)].into());
            let told = Mutex::new(Vec::new());
            let trouble = |why| told.lock().unwrap().push(why);
            assert_eq!(until_lost(store, &standing, Duration::from_millis(1), trouble).await, 4);
            assert_eq!(told.into_inner().unwrap(), [None, Some("unreachable".to_owned()), None]);
        }
        standing.confirm(4, None);
        assert!(standing.partitions().is_empty(), "a rebuild has confirmed nothing yet");
    }
}
