//! The OpenAPI document of topics, messages, subscriptions and push, a file each; `parts` and `schemas` are what they share.

mod messages;
mod parts;
mod push;
mod schemas;
mod subscriptions;
mod topics;

use std::sync::Arc;

use millrace_service::openapi::get;
use utoipa::openapi::HttpMethod;
use utoipa::openapi::path::OperationBuilder;
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;

pub(super) use schemas::name;

/// A path, a method, and what they do.
type Operation = (&'static str, HttpMethod, OperationBuilder);

/// Adds the document to the routes.
pub(super) fn describe(mut routes: OpenApiRouter<Arc<App>>) -> OpenApiRouter<Arc<App>> {
    let document = routes.get_openapi_mut();
    schemas::add(&mut document.components.get_or_insert_default().schemas);
    let operations = topics::operations()
        .into_iter()
        .chain(messages::operations())
        .chain(subscriptions::operations())
        .chain(push::operations());
    for (path, method, operation) in operations {
        let item = document.paths.paths.entry(path.to_owned()).or_default();
        if method == HttpMethod::Get {
            let both = get(operation);
            item.get = both.get;
            // HEAD would hand out messages that nobody sees.
            item.head = both.head.filter(|_| !path.ends_with("/messages"));
            continue;
        }
        let operation = Some(operation.build());
        match method {
            HttpMethod::Put => item.put = operation,
            HttpMethod::Post => item.post = operation,
            HttpMethod::Patch => item.patch = operation,
            _ => item.delete = operation,
        }
    }
    routes
}
