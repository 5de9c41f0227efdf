//! The result of `verify`, for people and for programs.

use std::fmt;

use millrace_contracts::{Hour, HourlyCount};
use serde::{Deserialize, Serialize};

use crate::text::plural;

/// Most differences in the list; more are only counted.
pub(super) const MAX_LISTED: usize = 1_000;

/// The comparison of the log with every read model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Report {
    /// One for each read model.
    pub(crate) stores: Vec<StoreReport>,
}

/// The comparison of one read model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoreReport {
    /// `redis` or `archive`.
    pub(crate) store: String,
    /// First hour of the comparison, if the store has only the last ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) live_from: Option<String>,
    /// Counts equal to the log's: one for each hour and partition.
    pub(crate) equal: u64,
    /// Counts that changed during every comparison.
    pub(crate) moving: u64,
    /// Incomplete partitions, which were not compared.
    pub(crate) building: Vec<u32>,
    /// Why the comparison of the store ended early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    /// Number of differences.
    pub(crate) different: u64,
    /// The first of them.
    pub(crate) differences: Vec<Difference>,
}

/// One count that differs from the log's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Difference {
    /// The hour, as in keys.
    pub(crate) hour: String,
    /// The partition.
    pub(crate) partition: u32,
    /// The log's count, if it has one.
    pub(crate) log: Option<Numbers>,
    /// The store's count, if it has one.
    pub(crate) store: Option<Numbers>,
}

/// A count's numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Numbers {
    unique_users: u64,
    clicks: u64,
    impressions: u64,
    exactness: String,
    generation: u32,
    next_offset: u64,
}

impl Report {
    /// Whether everything was compared and equal.
    pub(crate) fn is_right(&self) -> bool {
        self.stores.iter().all(StoreReport::is_right)
    }
}

impl StoreReport {
    fn is_right(&self) -> bool {
        self.different == 0 && self.building.is_empty() && self.error.is_none()
    }

    pub(super) fn differs(&mut self, hour: Hour, partition: u32, log: Option<HourlyCount>, store: Option<HourlyCount>) {
        self.different += 1;
        if self.differences.len() < MAX_LISTED {
            let (log, store) = (log.map(Numbers::from), store.map(Numbers::from));
            self.differences.push(Difference { hour: hour.to_string(), partition, log, store });
        }
    }
}

impl From<HourlyCount> for Numbers {
    fn from(count: HourlyCount) -> Self {
        let HourlyCount { generation, next_offset, clicks, impressions, unique_users, exactness, .. } = count;
        Self { unique_users, clicks, impressions, exactness: exactness.as_str().into(), generation, next_offset }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, store) in self.stores.iter().enumerate() {
            let separator = if number == 0 { "" } else { "\n" };
            write!(f, "{separator}{store}")?;
        }
        Ok(())
    }
}

impl fmt::Display for StoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, equal, moving, different, .. } = self;
        let live = self.live_from.as_ref().map(|from| format!(", live hours from {from} on")).unwrap_or_default();
        let verb = if *different == 1 { "differs" } else { "differ" };
        write!(f, "{store}{live}: {} equal to the log, {different} {verb}", plural(*equal, "count"))?;
        if *moving > 0 {
            write!(f, ", {moving} changed during every comparison")?;
        }
        if !self.building.is_empty() {
            write!(f, "\n{store}: partitions {:?} are incomplete and were not compared", self.building)?;
        }
        if let Some(error) = &self.error {
            write!(f, "\n{store}: the comparison ended early: {error}")?;
        }
        for difference in &self.differences {
            write!(f, "\n{store}: {difference}")?;
        }
        match different - self.differences.len() as u64 {
            0 => Ok(()),
            more => write!(f, "\n{store}: and {more} more"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = |numbers: &Option<Numbers>| numbers.as_ref().map_or_else(|| "nothing".into(), Numbers::to_string);
        let Self { hour, partition, log, store } = self;
        write!(f, "{hour}/{partition}: log: {}; store: {}", numbers(log), numbers(store))
    }
}

impl fmt::Display for Numbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { unique_users, clicks, impressions, exactness, generation, next_offset } = self;
        write!(f, "unique_users {unique_users} ({exactness}), clicks {clicks}, impressions {impressions}")?;
        write!(f, ", next_offset {next_offset}, generation {generation}")
    }
}
