//! `GET /log`: which log events are appended to. An import records it, since its position is worth nothing in another one.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use millrace_contracts::Code;
use millrace_log::Log;
use millrace_service::Problem;
use millrace_service::openapi::{self, EVERY_REQUEST, answer, fixed, object, operation, problems, route, some, text};
use tokio::sync::OnceCell;
use utoipa::openapi::path::PathItem;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

/// The id of the log, which is read once: on Kafka that is a request.
pub(crate) struct LogId {
    log: Log,
    id: OnceCell<String>,
}

impl LogId {
    pub(crate) fn new(log: Log) -> Self {
        Self { log, id: OnceCell::new() }
    }
}

pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::new().routes(route("/log", document(), get(log)))
}

async fn log(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let LogId { log, id } = &app.log_id;
    let id = id.get_or_try_init(|| log.id()).await;
    let id = id.map_err(|_| Problem::new(Code::Unavailable, "the log is unreachable"))?;
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    Ok((headers, format!("{}\n", serde_json::json!({ "id": id }))).into_response())
}

fn document() -> PathItem {
    let id = text().description(Some("That of the cluster with the topic of events, or that of the directory."));
    let found = answer("The log.")
        .header(CACHE_CONTROL.as_str(), fixed("no-store"))
        .content("application/json", some(object(&[("id", id.into())], &[])));
    let about = "Identifies the log that events are appended to.";
    openapi::get(problems(operation("log", "Events", about).response("200", found), EVERY_REQUEST))
}
