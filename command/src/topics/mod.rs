//! The routes of topics and subscriptions (`/v1/topics`).
//!
//! A handler reads its request strictly, brings a call to the topic's coordinator through the [`Directory`] and renders the
//! reply. A plain publish is appended here, by any instance; everything else is the coordinator's to decide.

mod batch;
mod directory;
mod fields;
mod forward;
mod message;
mod openapi;
mod path;
mod publish;
mod pull;
mod render;
mod subscription;
mod topic;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use http::HeaderValue;
use http::header::CACHE_CONTROL;
use millrace_contracts::Refusal;
use millrace_contracts::topics::Principal;
use millrace_service::Problem;
use utoipa_axum::router::OpenApiRouter;

pub(crate) use directory::Directory;
pub use directory::{NoCoordinator, TopicsConfig};
pub use forward::Forwarder;

use crate::app::App;

/// The routes and their OpenAPI document.
pub(crate) fn routes(app: &App) -> OpenApiRouter<Arc<App>> {
    let routes = OpenApiRouter::new()
        .route("/v1/topics", get(topic::list))
        .route("/v1/topics/{topic}", put(topic::create).get(topic::describe).patch(topic::alter).delete(topic::delete))
        .route("/v1/topics/{topic}/grants/{principal}", put(topic::grant).delete(topic::revoke))
        .route("/v1/topics/{topic}/messages", post(publish::post))
        .route("/v1/topics/{topic}/messages:batch", post(batch::post))
        .route("/v1/topics/{topic}/subscriptions", get(subscription::list))
        .route(
            "/v1/topics/{topic}/subscriptions/{subscription}",
            put(subscription::create)
                .get(subscription::describe)
                .patch(subscription::alter)
                .delete(subscription::delete)
                .post(subscription::act),
        )
        // HEAD would hand out messages that nobody sees.
        .route("/v1/topics/{topic}/subscriptions/{subscription}/messages", get(pull::get).head(pull::head));
    openapi::describe(routes, app)
}

/// Who makes a request. There is no authentication yet: everybody is `anonymous`, who manages every topic.
fn principal() -> Principal {
    Principal { name: "anonymous".into(), admin: true }
}

/// A response of these routes: never stored by a cache.
fn respond(result: Result<Response, Refusal>) -> Response {
    let mut response = result.unwrap_or_else(|refusal| Problem::from(refusal).into_response());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

type Application = State<Arc<App>>;
type Incoming = Request;
