//! Reads of more than one hour: a range, and the extent of the archive.

use std::collections::BTreeMap;

use millrace_contracts::{Hour, StoreError};

use super::{Archive, Engine};
use crate::Totals;

/// The first and the last hour with counts. Every hour outside is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveExtent(pub(super) Option<(Hour, Hour)>);

impl ArchiveExtent {
    /// Whether an hour may have counts.
    pub fn contains(&self, hour: Hour) -> bool {
        self.0.is_some_and(|(first, last)| (first..=last).contains(&hour))
    }
}

impl Archive {
    /// The totals of each hour with counts in `from..to`. `None` during a rebuild of the archive.
    pub async fn hours(&self, from: Hour, to: Hour) -> Result<Option<BTreeMap<Hour, Totals>>, StoreError> {
        let mut hours: BTreeMap<Hour, Totals> = BTreeMap::new();
        for part in self.snapshot(0..self.partitions(), from..to).await? {
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

    /// The first and the last hour with counts. `None` during a rebuild of the archive.
    pub async fn extent(&self) -> Result<Option<ArchiveExtent>, StoreError> {
        match &self.0 {
            Engine::Postgres(archive) => archive.extent().await,
            Engine::Embedded(archive) => archive.extent(),
        }
    }
}
