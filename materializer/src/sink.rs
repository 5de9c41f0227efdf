//! The sink: turns batches into writes of counts and positions.

use millrace_contracts::{HourlyCount, ProjectionPosition, ProjectionWrite, StoreError, Topic, WriteOutcome, metric};
use millrace_log::{Batch, Sink};
use millrace_store::HourlyStore;

use crate::ConfirmedPositions;
use crate::fold::{Fold, fold};
use crate::pace::Pace;

/// Projects `analytics.hourly` into one store.
#[derive(Debug)]
pub struct HourlySink<S> {
    store: S,
    /// The store's name in metrics and logs.
    name: &'static str,
    confirmed: ConfirmedPositions,
    pace: Option<Pace>,
    /// Whether a skipped record was logged: the first one is, later ones only count.
    skip_logged: bool,
}

impl<S: HourlyStore> HourlySink<S> {
    /// A sink into `store`, with `name` in metrics and logs, that records the positions which the store confirms.
    pub fn new(store: S, name: &'static str, confirmed: ConfirmedPositions) -> Self {
        // Creates the series: a rate over a series that first appears with a count misses that count.
        for counter in [metric::PROJECTED, metric::SKIPPED, metric::REBUILDS, metric::STORE_LOSSES] {
            metrics::counter!(counter.name, "store" => name).increment(0);
        }
        Self { store, name, confirmed, pace: None, skip_logged: false }
    }

    /// Delays writes, for a store that another one is ahead of.
    #[must_use]
    pub(crate) fn paced(self, pace: Pace) -> Self {
        Self { pace: Some(pace), ..self }
    }

    fn applied(&mut self, step: &ProjectionWrite<'_, Batch>, fold: &Fold) {
        let partition = step.partition;
        self.confirmed.confirm(partition, Some(step.next));
        let records = step.items.len() as u64 - fold.skipped - fold.steps;
        metrics::counter!(metric::PROJECTED.name, "store" => self.name).increment(records);
        if step.expected.is_none() {
            metrics::counter!(metric::REBUILDS.name, "store" => self.name).increment(1);
        }
        if let Some((offset, error)) = fold.first_skipped {
            metrics::counter!(metric::SKIPPED.name, "store" => self.name).increment(fold.skipped);
            if !self.skip_logged {
                self.skip_logged = true;
                let store = self.name;
                tracing::warn!(store, partition, offset, %error, "skipping a record of analytics.hourly that is not an hourly count");
            }
        }
    }
}

/// What to do if the log is not the one that the position of a store is of.
pub fn remedy(store: &str) -> String {
    format!(
        "restore `analytics.hourly`, or run `millrace rebuild {store}`: the store then has the hours of this log only"
    )
}

/// The write of a step's fold.
fn write<'a>(step: &ProjectionWrite<'_, Batch>, fold: &'a Fold) -> ProjectionWrite<'a, [HourlyCount]> {
    ProjectionWrite { counted: fold.counted, ..step.with_items(&fold.counts[..]) }
}

impl<S: HourlyStore> Sink for HourlySink<S> {
    fn topic(&self) -> Topic {
        Topic::HOURLY
    }

    async fn position(&mut self, partition: u32) -> Result<Option<ProjectionPosition>, StoreError> {
        let position = self.store.position(partition).await?;
        self.confirmed.confirm(partition, position.map(|position| position.next_offset));
        Ok(position)
    }

    fn remedy(&self) -> String {
        remedy(self.name)
    }

    async fn write(&mut self, steps: &[ProjectionWrite<'_, Batch>]) -> Result<Vec<WriteOutcome>, StoreError> {
        if let Some(pace) = &self.pace {
            pace.wait(steps).await;
        }
        let folds: Vec<Fold> = steps.iter().map(|step| fold(step.items)).collect();
        let writes: Vec<ProjectionWrite<'_, [HourlyCount]>> =
            steps.iter().zip(&folds).map(|(step, fold)| write(step, fold)).collect();
        let outcomes = self.store.write(&writes).await?;
        if let Some(pace) = &mut self.pace {
            pace.written(steps);
        }
        for ((step, fold), outcome) in steps.iter().zip(&folds).zip(&outcomes) {
            match *outcome {
                WriteOutcome::Applied => self.applied(step, fold),
                WriteOutcome::PositionMismatch(position) => self.confirmed.confirm(step.partition, position),
            }
        }
        Ok(outcomes)
    }
}
