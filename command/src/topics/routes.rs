//! The routes of topics and subscriptions.

use std::sync::Arc;

use axum::routing::{MethodRouter, any, get, post, put};
use http::Method;
use millrace_contracts::{Code, Refusal};
use tower::ServiceExt as _;
use utoipa_axum::router::OpenApiRouter;

use super::exchange::{Incoming, respond};
use super::{batch, deliveries, diagnosis, legacy, openapi, path, publish, pull, settle, subscription, topic};
use crate::app::App;

/// The routes and their OpenAPI document.
pub(crate) fn routes(app: &Arc<App>) -> OpenApiRouter<Arc<App>> {
    let verbs = [
        ("suspend", post(subscription::suspend)),
        ("resume", post(subscription::resume)),
        ("seek", post(subscription::seek)),
        ("rotate-secret", post(subscription::rotate_secret)),
        ("test", post(diagnosis::test)),
        ("explain", get(diagnosis::explain)),
        ("ack", post(settle::ack)),
        ("nack", post(settle::nack)),
        ("extend", post(settle::extend)),
    ];
    let described =
        put(subscription::create).get(subscription::describe).patch(subscription::alter).delete(subscription::delete);
    let mut routes = OpenApiRouter::new()
        .route("/v1/topics", get(topic::list))
        .route("/v1/topics/{topic}", put(topic::create).get(topic::describe).patch(topic::alter).delete(topic::delete))
        .route("/v1/topics/{topic}/grants/{principal}", put(topic::grant).delete(topic::revoke))
        .route("/v1/topics/{topic}/messages", post(publish::post))
        .route("/v1/topics/{topic}/subscriptions", get(subscription::list))
        .route("/v1/topics/{topic}/subscriptions/{subscription}", with_verbs(app, described, verbs))
        .route("/v1/topics/{topic}/subscriptions/{subscription}/messages", any(pull::get))
        .route("/v1/topics/{topic}/subscriptions/{subscription}/attempts", get(deliveries::attempts))
        .route("/v1/topics/{topic}/subscriptions/{subscription}/dead-letters", get(deliveries::dead_letters))
        .route("/v1/topics/{topic}/subscriptions/{subscription}/redrives/{redrive}", get(deliveries::describe_redrive));
    for colon in [":", "%3A", "%3a"] {
        routes = routes.route(&format!("/v1/topics/{{topic}}/messages{colon}batch"), post(batch::post));
        let redrive = format!("/v1/topics/{{topic}}/subscriptions/{{subscription}}/dead-letters{colon}redrive");
        routes = routes.route(&redrive, post(deliveries::redrive));
    }
    let routes = openapi::describe(routes);
    let config = &app.config.topics.legacy;
    if config.enabled { routes.merge(legacy::routes(config.base())) } else { routes }
}

/// Routes `{name}` and each `{name}:{verb}` to methods of their own: to axum the two are one path. Selecting the path
/// before the method is what makes a 405 and its `Allow` right.
fn with_verbs<const N: usize>(
    app: &Arc<App>,
    plain: MethodRouter<Arc<App>>,
    verbs: [(&'static str, MethodRouter<Arc<App>>); N],
) -> MethodRouter<Arc<App>> {
    let plain: MethodRouter = plain.with_state(app.clone());
    let verbs: Arc<[(&str, MethodRouter)]> =
        verbs.map(|(verb, methods)| (verb, methods.with_state(app.clone()))).into();
    any(move |request: Incoming| {
        let methods = select(&request, &plain, &verbs);
        async move {
            match methods {
                Ok(methods) => methods.oneshot(request).await.unwrap_or_else(|never| match never {}),
                Err(refusal) => respond(Err(refusal)),
            }
        }
    })
}

/// The methods of a path. No name has a colon, so that whoever creates `a:b` learns what is wrong with the name.
fn select(request: &Incoming, plain: &MethodRouter, verbs: &[(&str, MethodRouter)]) -> Result<MethodRouter, Refusal> {
    let Some(verb) = path::verb(request.uri()) else { return Ok(plain.clone()) };
    match verbs.iter().find(|(known, _)| *known == verb) {
        Some((_, methods)) => Ok(methods.clone()),
        None if request.method() == Method::POST => {
            let known: Vec<&str> = verbs.iter().map(|(known, _)| *known).collect();
            Err(Refusal::new(Code::NotFound, format!("no such verb; there are {}", known.join(", "))))
        }
        None => Ok(plain.clone()),
    }
}
