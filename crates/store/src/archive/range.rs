//! Reads of more than one hour: a range, and where the hours with counts begin and end.

use std::collections::BTreeMap;

use millrace_contracts::{Hour, StoreError};

use super::{Archive, Engine};
use crate::Totals;

/// The first and the last hour with counts; every other hour is outside, and known to be empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edges(pub(super) Option<(Hour, Hour)>);

impl Edges {
    /// Whether an hour may have counts.
    pub fn hold(&self, hour: Hour) -> bool {
        self.0.is_some_and(|(first, last)| (first..=last).contains(&hour))
    }
}

impl Archive {
    /// The hours from `from` up to but without `to` that have counts, and these. `None` while the archive is being built.
    pub async fn hours(&self, from: Hour, to: Hour) -> Result<Option<BTreeMap<Hour, Totals>>, StoreError> {
        let partitions = match &self.0 {
            Engine::Postgres(archive) => archive.partitions(),
            Engine::Embedded(archive) => archive.partitions(),
        };
        let mut hours: BTreeMap<Hour, Totals> = BTreeMap::new();
        for part in self.snapshot(0..partitions, from..to).await? {
            if !part.complete {
                return Ok(None);
            }
            for count in part.counts {
                let totals = hours.entry(count.hour).or_default();
                totals.add(count.clicks, count.impressions, count.unique_users, count.exactness);
            }
        }
        Ok(Some(hours))
    }

    /// Where the hours with counts begin and end. `None` while the archive is being built.
    pub async fn edges(&self) -> Result<Option<Edges>, StoreError> {
        match &self.0 {
            Engine::Postgres(archive) => archive.edges().await,
            Engine::Embedded(archive) => archive.edges(),
        }
    }
}
