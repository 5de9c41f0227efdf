//! The page at `/`: its files, compiled in and compressed beforehand, and `/status`, what the page says of the pipeline.
//!
//! The page itself is in `assets/`. It asks nothing but this service: `/analytics/live`, `/analytics/range`, `/status`.

mod assets;
mod peek;
mod samples;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::routing::get;

pub(crate) use status::Status;

/// `/`, `/assets/…` and `/status`.
pub(crate) fn router(status: Arc<Status>) -> Router {
    assets::router().merge(Router::new().route("/status", get(status::answer)).with_state(status))
}
