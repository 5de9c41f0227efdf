//! The probe: compares the positions of a store with those that it confirmed, to detect lost data.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use millrace_store::HourlyStore;
use tokio::time::MissedTickBehavior;

/// The last position of each partition that its store confirmed. The sinks of one store and its probe share it.
#[derive(Debug, Clone, Default)]
pub struct ConfirmedPositions(Arc<Mutex<BTreeMap<u32, u64>>>);

impl ConfirmedPositions {
    /// Records the position that the store reported.
    pub(crate) fn confirm(&self, partition: u32, position: Option<u64>) {
        let mut positions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match position {
            Some(position) => positions.insert(partition, position),
            None => positions.remove(&partition),
        };
    }

    fn of(&self, partition: u32) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&partition).copied()
    }

    fn partitions(&self) -> Vec<u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

/// Probes a store until a partition has a lower position than confirmed, and returns that partition. The store was flushed,
/// restored from a backup, or failed over to a lagging replica. A sink detects that when it writes; the probe detects it
/// while there is nothing to write, so that readers need not wait for the next event.
///
/// Calls `report` with the error of a failed probe, and with `None` after a successful one.
pub(crate) async fn until_lost(
    mut store: impl HourlyStore,
    confirmed: &ConfirmedPositions,
    interval: Duration,
    report: impl Fn(Option<String>),
) -> u32 {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for partition in confirmed.partitions() {
            let Some(expected) = confirmed.of(partition) else { continue };
            match store.position(partition).await.map(|found| found.map(|found| found.next_offset)) {
                // Confirmed before the probe and unchanged after it, so no concurrent write explains a lower position.
                Ok(found)
                    if found.is_none_or(|found| found < expected) && confirmed.of(partition) == Some(expected) =>
                {
                    return partition;
                }
                Ok(_) => report(None),
                Err(error) => {
                    report(Some(error.to_string()));
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_contracts::{HourlyCount, ProjectionPosition, ProjectionWrite, StoreError, WriteOutcome};
    use std::collections::VecDeque;

    /// Returns scripted positions in order.
    struct ScriptedStore(VecDeque<Result<Option<u64>, StoreError>>);

    impl HourlyStore for ScriptedStore {
        async fn position(&mut self, _partition: u32) -> Result<Option<ProjectionPosition>, StoreError> {
            let scripted = self.0.pop_front().expect("more probes than scripted");
            scripted.map(|next| next.map(|next_offset| ProjectionPosition { next_offset, last_record: None }))
        }
        async fn write(
            &mut self,
            _writes: &[ProjectionWrite<'_, [HourlyCount]>],
        ) -> Result<Vec<WriteOutcome>, StoreError> {
            unreachable!("never written to")
        }
    }

    #[tokio::test]
    async fn a_position_below_the_confirmed_one_is_a_loss() {
        let confirmed = ConfirmedPositions::default();
        confirmed.confirm(4, Some(7));
        let away = || Err(StoreError::retry("unreachable"));
        for lost in [None, Some(6)] {
            let store = ScriptedStore([Ok(Some(7)), away(), Ok(Some(8)), Ok(lost)].into());
            let reports = Mutex::new(Vec::new());
            let report = |error| reports.lock().unwrap().push(error);
            assert_eq!(until_lost(store, &confirmed, Duration::from_millis(1), report).await, 4);
            assert_eq!(reports.into_inner().unwrap(), [None, Some("unreachable".to_owned()), None]);
        }
        confirmed.confirm(4, None);
        assert!(confirmed.partitions().is_empty(), "a new rebuild has confirmed no position");
    }
}
