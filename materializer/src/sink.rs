//! The sink: batches in, one write of counts and positions out.

use millrace_contracts::{Topic, metric};
use millrace_log::{Sink, SinkError, SinkStep, Written};
use millrace_store::{HourlyStore, HourlyWrite, StoreError};

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

    fn moved(&mut self, step: &SinkStep<'_>, fold: &Fold) {
        let partition = step.batch.partition();
        self.standing.confirm(partition, Some(step.next));
        let records = step.batch.len() as u64 - fold.skipped;
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

    async fn position(&mut self, partition: u32) -> Result<Option<u64>, SinkError> {
        let position = self.store.position(partition).await.map_err(failed)?;
        self.standing.confirm(partition, position);
        Ok(position)
    }

    async fn write(&mut self, steps: &[SinkStep<'_>]) -> Result<Vec<Written>, SinkError> {
        let folds: Vec<Fold> = steps.iter().map(|step| fold(step.batch)).collect();
        let writes: Vec<HourlyWrite<'_>> = steps
            .iter()
            .zip(&folds)
            .map(|(step, fold)| HourlyWrite {
                partition: step.batch.partition(),
                expected: step.expected,
                next: step.next,
                caught_up: step.caught_up,
                counts: &fold.counts,
            })
            .collect();
        let written = self.store.write(&writes).await.map_err(failed)?;
        let mut results = Vec::with_capacity(steps.len());
        for ((step, fold), written) in steps.iter().zip(&folds).zip(written) {
            results.push(match written {
                millrace_store::Written::Moved => {
                    self.moved(step, fold);
                    Written::Moved
                }
                millrace_store::Written::Elsewhere(position) => {
                    self.standing.confirm(step.batch.partition(), position);
                    Written::Elsewhere(position)
                }
            });
        }
        Ok(results)
    }
}

fn failed(error: StoreError) -> SinkError {
    SinkError { next: error.next, why: error.why }
}
