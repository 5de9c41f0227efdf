//! One row of the fault table.

use crate::cluster::{Cluster, Script};
use crate::options::Options;
use crate::random::USERS;
use crate::system::{Engine, Setup};

/// One row.
pub(crate) struct Scenario {
    /// Its number in the fault table, or a word.
    pub(super) row: &'static str,
    /// What it does and what must hold, besides equal numbers.
    pub(super) what: &'static str,
    /// Whether it needs the binary's fail points.
    pub(super) fail_points: bool,
    /// The setup of a system of its own; without one, rows share a system.
    pub(super) own: Option<SetupFn>,
    /// The script.
    pub(super) play: Script,
}

/// A setup, the number of users, and the share of one of them in percent.
pub(super) type SetupFn = fn() -> (Setup, u64, u64);

impl Scenario {
    /// Starts a cluster for this row.
    pub(super) fn start(&self, engine: Engine, options: &Options) -> Result<Cluster, String> {
        let (setup, users, hot) = self.own.map_or_else(|| (Setup::new(engine), USERS, 0), |own| own());
        Cluster::start(&setup, options, users, hot)
    }
}
