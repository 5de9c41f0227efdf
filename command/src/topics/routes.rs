//! The routes of topics and subscriptions.

use std::sync::Arc;

use axum::routing::{any, get, post, put};
use utoipa_axum::router::OpenApiRouter;

use super::{batch, openapi, publish, pull, subscription, topic};
use crate::app::App;

/// The routes and their OpenAPI document.
pub(crate) fn routes() -> OpenApiRouter<Arc<App>> {
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
        .route("/v1/topics/{topic}/subscriptions/{subscription}/messages", any(pull::get));
    openapi::describe(routes)
}
