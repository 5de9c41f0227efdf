//! The routes by which a running process answers `verify` and `rebuild` for the directory it holds. Admin listener only.

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

use super::{Report, Stands, View, standing, verify};

struct Shared {
    log: Log,
    views: Vec<View>,
    /// One comparison at a time.
    verifying: Mutex<()>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hours {
    /// The first hour's number, and the one after the last.
    from: i64,
    to: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    store: String,
}

/// `GET /admin/verify`, `GET /admin/standing` and `PUT /admin/rebuild`.
pub(crate) fn router(log: Log, views: Vec<View>) -> Router {
    let shared = Shared { log, views, verifying: Mutex::default() };
    Router::new()
        .route("/admin/verify", get(verified))
        .route("/admin/standing", get(stands))
        // PUT, which no page of another origin can send unasked, unlike a POST.
        .route("/admin/rebuild", put(rebuild))
        .with_state(Arc::new(shared))
}

impl Shared {
    fn view(&self, which: &Which) -> Result<&View, Problem> {
        let found = self.views.iter().find(|view| view.name() == which.store);
        found.ok_or_else(|| Problem::new(Code::InvalidField, "this process has no such store").field("store"))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
fn unavailable(error: impl ToString) -> Problem {
    Problem::new(Code::Unavailable, error.to_string())
}

async fn verified(State(shared): State<Arc<Shared>>, Query(hours): Query<Hours>) -> Result<Json<Report>, Problem> {
    let _one = shared
        .verifying
        .try_lock()
        .map_err(|_| Problem::new(Code::Overloaded, "a comparison is under way already".to_owned()))?;
    let hours = Hour::from_index(hours.from)..Hour::from_index(hours.to);
    let report =
        verify(&shared.log, &shared.views, hours, |_, _| {}).await.map_err(|e| unavailable(format!("{e:#}")))?;
    Ok(Json(report))
}

async fn stands(State(shared): State<Arc<Shared>>, Query(which): Query<Which>) -> Result<Json<Vec<Stands>>, Problem> {
    standing(&shared.log, shared.view(&which)?).await.map(Json).map_err(unavailable)
}

async fn rebuild(State(shared): State<Arc<Shared>>, Query(which): Query<Which>) -> Result<StatusCode, Problem> {
    let view = shared.view(&which)?;
    view.reset().await.map_err(unavailable)?;
    tracing::warn!(store = view.name(), "asked to build a store again: it is empty now");
    Ok(StatusCode::NO_CONTENT)
}
