//! The routes of a running process for `verify` and `rebuild` on its directory. Admin listener only.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use millrace_contracts::{Code, Hour};
use millrace_log::Log;
use millrace_service::Problem;
use serde::Deserialize;
use tokio::sync::Mutex;

use super::{PartitionProgress, Report, View, progress, verify};

struct Shared {
    log: Log,
    views: Vec<View>,
    /// One comparison at a time.
    verifying: Mutex<()>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HoursQuery {
    /// Index of the first hour, and of the one after the last.
    from: i64,
    to: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoreQuery {
    store: String,
}

/// `GET /admin/verify`, `GET /admin/progress` and `PUT /admin/rebuild`.
pub(crate) fn router(log: Log, views: Vec<View>) -> Router {
    let shared = Shared { log, views, verifying: Mutex::default() };
    Router::new()
        .route("/admin/verify", get(verified))
        .route("/admin/progress", get(progress_of))
        // PUT: unlike a POST, a page of another origin cannot send it without a preflight request.
        .route("/admin/rebuild", put(rebuild))
        .with_state(Arc::new(shared))
}

impl Shared {
    fn view(&self, which: &StoreQuery) -> Result<&View, Problem> {
        let found = self.views.iter().find(|view| view.name() == which.store);
        found.ok_or_else(|| Problem::new(Code::InvalidField, "this process has no such store").field("store"))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
fn unavailable(error: impl ToString) -> Problem {
    Problem::new(Code::Unavailable, error.to_string())
}

async fn verified(State(shared): State<Arc<Shared>>, Query(hours): Query<HoursQuery>) -> Result<Json<Report>, Problem> {
    let _one = shared
        .verifying
        .try_lock()
        .map_err(|_| Problem::new(Code::Overloaded, "another comparison is running".to_owned()))?;
    let hours = Hour::from_index(hours.from)..Hour::from_index(hours.to);
    let report =
        verify(&shared.log, &shared.views, hours, |_, _| {}).await.map_err(|e| unavailable(crate::text::chain(&e)))?;
    Ok(Json(report))
}

async fn progress_of(
    State(shared): State<Arc<Shared>>,
    Query(which): Query<StoreQuery>,
) -> Result<Json<Vec<PartitionProgress>>, Problem> {
    progress(&shared.log, shared.view(&which)?).await.map(Json).map_err(unavailable)
}

async fn rebuild(State(shared): State<Arc<Shared>>, Query(which): Query<StoreQuery>) -> Result<StatusCode, Problem> {
    let view = shared.view(&which)?;
    view.reset().await.map_err(unavailable)?;
    tracing::warn!(store = view.name(), "emptied the store for a rebuild");
    Ok(StatusCode::NO_CONTENT)
}
