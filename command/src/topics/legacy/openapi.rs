//! The OpenAPI document of the earlier system's calls.

use std::sync::Arc;

use millrace_service::openapi::{
    EVERY_REQUEST, answer, fixed, get, number, object, operation, part, problems, some, text,
};
use serde_json::json;
use utoipa::openapi::content::{Content, ContentBuilder};
use utoipa::openapi::path::{OperationBuilder, PathItem};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::openapi::{HttpMethod, Required, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;

use crate::app::App;
use crate::topics::openapi::name;

const GROUP: &str = "Earlier system";
const TYPE: &str = "application/json;charset=utf-8";

/// Adds the document to the routes below `base`.
pub(super) fn describe(mut routes: OpenApiRouter<Arc<App>>, base: &str) -> OpenApiRouter<Arc<App>> {
    let paths = &mut routes.get_openapi_mut().paths.paths;
    let mut post = |path: &str, operation: OperationBuilder| {
        paths.insert(format!("{base}{path}"), PathItem::new(HttpMethod::Post, operation.build()));
    };
    let registered = done(call("legacyRegister", "Registers a topic, open to every subscriber."), position());
    post("/topic/register/{topic}", refused(registered, &["400", "401", "403", "406", "409"]));
    let subscribed = done(call("legacySubscribe", "Subscribes the principal, from the newest message on."), position());
    post("/topic/subscribe/{topic}", refused(subscribed, &["400", "401", "403", "404", "406", "409"]));
    let example = ContentBuilder::new().schema(Some(ObjectBuilder::new())).example(Some(json!({"n": 1}))).build();
    let body = RequestBodyBuilder::new().required(Some(Required::True)).content("application/json", example).build();
    let published =
        done(call("legacyPublish", "Publishes a message; its owner does.").request_body(Some(body)), message());
    post("/message/publish/{topic}", refused(published, &["400", "401", "403", "404", "406", "413", "415"]));
    let acked = call("legacyAck", "Acknowledges the message that the last get handed out.");
    let acked = done(acked, position()).response("204", ResponseBuilder::new().description("There is none."));
    post("/message/ack/{topic}", refused(acked, &["400", "401", "403", "406"]));
    let current = call("legacyGet", "The current message: the same one until it is acknowledged.")
        .response("200", with(answer("The message."), message()))
        .response("204", ResponseBuilder::new().description("There is none."));
    let current = refused(current, &["400", "401", "403", "406"]).build();
    paths.insert(format!("{base}/message/get/{{topic}}"), PathItem::new(HttpMethod::Get, current));
    let healthy = object(&[("status", fixed_text("healthy"))], &[]);
    let healthy = answer("It does; in the type that `Accept` names.").content(TYPE, some(healthy));
    let health = operation("legacyHealth", GROUP, "Liveness: whether the process responds.").response("200", healthy);
    paths.insert(format!("{base}/health"), get(problems(health, EVERY_REQUEST)));
    routes
}

fn fixed_text(word: &str) -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
    text().enum_values(Some([word])).into()
}

fn call(id: &str, summary: &str) -> OperationBuilder {
    operation(id, GROUP, summary).parameter(part("topic", "The topic's name.", name("orders")))
}

fn position() -> ObjectBuilder {
    object(&[("name", name("orders").into()), ("position", number().into())], &[])
}

fn message() -> ObjectBuilder {
    object(&[("topic", name("orders").into()), ("content", text().into())], &[])
}

fn with(response: ResponseBuilder, schema: ObjectBuilder) -> ResponseBuilder {
    let content: Content = some(schema);
    response.header("cache-control", fixed("no-store")).content(TYPE, content)
}

fn done(operation: OperationBuilder, schema: ObjectBuilder) -> OperationBuilder {
    operation.response("201", with(answer("Done."), schema))
}

/// Errors of the call itself; the server's own are problem documents, as everywhere.
fn refused(operation: OperationBuilder, statuses: &[&str]) -> OperationBuilder {
    let error = || with(answer("Why not."), object(&[("error", text().into())], &[]));
    let own = statuses.iter().fold(operation, |operation, status| operation.response(*status, error()));
    let server: Vec<_> = EVERY_REQUEST
        .iter()
        .copied()
        .filter(|code| !statuses.contains(&millrace_service::status_of(*code).as_str()))
        .collect();
    problems(own, &server)
}
