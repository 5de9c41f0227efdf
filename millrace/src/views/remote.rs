//! Asks the process that holds the embedded directory.

use std::ops::Range;
use std::time::Duration;

use millrace_contracts::Hour;

use super::{Report, Stands};
use crate::inspect::{Remote, RemoteError};

/// A comparison reads the whole of `analytics.hourly`.
const VERIFY_WITHIN: Duration = Duration::from_mins(10);
const WITHIN: Duration = Duration::from_secs(10);

impl Remote {
    /// Compares the log with the archive.
    pub(crate) async fn verify(&self, hours: &Range<Hour>) -> Result<Report, RemoteError> {
        let path = format!("/admin/verify?from={}&to={}", hours.start.index(), hours.end.index());
        self.ask(http::Method::GET, &path, VERIFY_WITHIN).await
    }

    /// Where every partition of a store stands.
    pub(crate) async fn standing(&self, store: &str) -> Result<Vec<Stands>, RemoteError> {
        self.ask(http::Method::GET, &format!("/admin/standing?store={store}"), WITHIN).await
    }

    /// Empties a store.
    pub(crate) async fn rebuild(&self, store: &str) -> Result<(), RemoteError> {
        self.tell(http::Method::PUT, &format!("/admin/rebuild?store={store}"), WITHIN).await
    }
}
