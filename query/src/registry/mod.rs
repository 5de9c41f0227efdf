//! `/registry`: the schemas of the log in the read API of Confluent's schema registry.

pub(crate) mod openapi;
mod schemas;

use std::sync::Arc;

use axum::routing::any;
use millrace_contracts::Names;
use millrace_service::openapi::route;
use utoipa_axum::router::OpenApiRouter;

use schemas::{Registry, answer};

pub(crate) fn router(names: &Names) -> OpenApiRouter {
    let registry = Arc::new(Registry::new(names));
    // Any other path below, or another spelling of one, gets the registry's own 404.
    let other = OpenApiRouter::default().route("/registry/{*path}", any(answer));
    let add = |api: OpenApiRouter<_>, (path, operation)| api.routes(route(path, operation, any(answer)));
    openapi::paths().into_iter().fold(other, add).with_state(registry)
}
