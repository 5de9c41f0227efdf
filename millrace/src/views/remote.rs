//! Requests to the process that has the embedded directory open.

use std::ops::Range;
use std::time::Duration;

use millrace_contracts::Hour;

use super::{PartitionProgress, Report};
use crate::inspect::{Remote, RemoteError};

/// A comparison reads the whole of `analytics.hourly`.
const VERIFY_TIMEOUT: Duration = Duration::from_mins(10);
const TIMEOUT: Duration = Duration::from_secs(10);

impl Remote {
    /// Compares the log with the archive.
    pub(crate) async fn verify(&self, hours: &Range<Hour>) -> Result<Report, RemoteError> {
        let path = format!("/admin/verify?from={}&to={}", hours.start.index(), hours.end.index());
        self.fetch(&path, VERIFY_TIMEOUT).await
    }

    /// The progress of every partition of a store.
    pub(crate) async fn progress(&self, store: &str) -> Result<Vec<PartitionProgress>, RemoteError> {
        self.fetch(&format!("/admin/progress?store={store}"), TIMEOUT).await
    }

    /// Empties a store.
    pub(crate) async fn rebuild(&self, store: &str) -> Result<(), RemoteError> {
        self.put(&format!("/admin/rebuild?store={store}")).await
    }
}
