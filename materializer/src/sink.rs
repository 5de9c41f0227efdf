//! The sink: batches in, one write of counts and positions out.

use millrace_contracts::{HourlyCount, ProjectionWrite, StoreError, Topic, WriteOutcome, metric};
use millrace_log::{Batch, Sink};
use millrace_store::HourlyStore;

use crate::Standing;
use crate::fold::{Fold, fold};

/// Projects `analytics.hourly` into one store.
#[derive(Debug)]
pub struct HourlySink<S> {
    store: S,
    /// The store's name in metrics and logs.
    name: &'static str,
    standing: Standing,
    /// A record that is no count is logged once, then only counted.
    told: bool,
}

impl<S: HourlyStore> HourlySink<S> {
    /// A sink into `store`, called `name` in metrics and logs, that notes in `standing` what the store confirms.
    pub fn new(store: S, name: &'static str, standing: Standing) -> Self {
        // A rate over a series that comes with its first count misses it.
        for counter in [metric::PROJECTED, metric::SKIPPED, metric::REBUILDS, metric::STORE_LOSSES] {
            metrics::counter!(counter.name, "store" => name).increment(0);
        }
        Self { store, name, standing, told: false }
    }

    fn applied(&mut self, step: &ProjectionWrite<'_, Batch>, fold: &Fold) {
        let partition = step.partition;
        self.standing.confirm(partition, Some(step.next));
        let records = step.items.len() as u64 - fold.skipped;
        metrics::counter!(metric::PROJECTED.name, "store" => self.name).increment(records);
        if step.expected.is_none() {
            metrics::counter!(metric::REBUILDS.name, "store" => self.name).increment(1);
        }
        if let Some((offset, error)) = fold.first_skipped {
            metrics::counter!(metric::SKIPPED.name, "store" => self.name).increment(fold.skipped);
            if !self.told {
                self.told = true;
                let store = self.name;
                tracing::warn!(store, partition, offset, %error, "a record of analytics.hourly is no count: left aside");
            }
        }
    }
}

impl<S: HourlyStore> Sink for HourlySink<S> {
    fn topic(&self) -> Topic {
        Topic::HOURLY
    }

    async fn position(&mut self, partition: u32) -> Result<Option<u64>, StoreError> {
        let position = self.store.position(partition).await?;
        self.standing.confirm(partition, position);
        Ok(position)
    }

    async fn write(&mut self, steps: &[ProjectionWrite<'_, Batch>]) -> Result<Vec<WriteOutcome>, StoreError> {
        let folds: Vec<Fold> = steps.iter().map(|step| fold(step.items)).collect();
        let writes: Vec<ProjectionWrite<'_, [HourlyCount]>> =
            steps.iter().zip(&folds).map(|(step, fold)| step.with_items(&fold.counts[..])).collect();
        let outcomes = self.store.write(&writes).await?;
        for ((step, fold), outcome) in steps.iter().zip(&folds).zip(&outcomes) {
            match *outcome {
                WriteOutcome::Applied => self.applied(step, fold),
                WriteOutcome::PositionMismatch(position) => self.standing.confirm(step.partition, position),
            }
        }
        Ok(outcomes)
    }
}
