//! Subscriptions.

use millrace_contracts::Code;
use millrace_service::openapi::{number, words};
use serde_json::json;
use utoipa::ToSchema as _;
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder};
use utoipa::openapi::{HttpMethod, Required};

use super::Operation;
use super::parts::{
    deleted, if_match, json_body, list, merge_patch, on_subscription, on_topic, reference, refusals, subscription,
    tagged, with_body,
};
use super::schemas::{duration, filter_or_null, null, or_null, start};
use crate::topics::render::SubscriptionBody;
use crate::topics::subscription::MAX_ATTEMPTS;

const SUBSCRIPTIONS: &str = "Subscriptions";
const SUBSCRIPTION: &str = "/v1/topics/{topic}/subscriptions/{subscription}";
const SUSPEND: &str = "/v1/topics/{topic}/subscriptions/{subscription}:suspend";
const RESUME: &str = "/v1/topics/{topic}/subscriptions/{subscription}:resume";
const SEEK: &str = "/v1/topics/{topic}/subscriptions/{subscription}:seek";

pub(super) fn operations() -> Vec<Operation> {
    let listed = on_topic("listSubscriptions", SUBSCRIPTIONS, "Lists a topic's subscriptions by name.");
    let described = refusals(on("describeSubscription", "Describes a subscription."), &[]);
    let gone = on_topic("deleteSubscription", SUBSCRIPTIONS, "Deletes a subscription.");
    let gone = deleted(gone.parameter(subscription("retired")));
    vec![
        ("/v1/topics/{topic}/subscriptions", HttpMethod::Get, list(listed, "subscriptions", SubscriptionBody::name())),
        (SUBSCRIPTION, HttpMethod::Put, create()),
        (SUBSCRIPTION, HttpMethod::Get, with_subscription(described, "200", "The subscription.")),
        (SUBSCRIPTION, HttpMethod::Patch, alter()),
        (SUBSCRIPTION, HttpMethod::Delete, gone),
        (SUSPEND, HttpMethod::Post, verb("suspendSubscription", "Suspends a subscription; its position stays.")),
        (RESUME, HttpMethod::Post, verb("resumeSubscription", "Resumes a subscription.")),
        (SEEK, HttpMethod::Post, seek()),
    ]
}

fn on(id: &str, summary: &str) -> OperationBuilder {
    on_subscription(id, SUBSCRIPTIONS, summary)
}

fn with_subscription(operation: OperationBuilder, status: &str, description: &str) -> OperationBuilder {
    let content = reference(&SubscriptionBody::name());
    operation.response(status, tagged(description).content("application/json", content))
}

fn settings() -> ObjectBuilder {
    let attempts = number().minimum(Some(1)).maximum(isize::try_from(MAX_ATTEMPTS).ok());
    ObjectBuilder::new()
        .property("mode", words(["pull", "push"]))
        .property("filter", filter_or_null())
        .property("ack_deadline", or_null(duration("30s")))
        .property("max_attempts", or_null(attempts))
        .property("push", OneOfBuilder::new().item(super::push::settings()).item(null()))
}

fn create() -> OperationBuilder {
    let settings = settings().property("start", start()).property("order", words(["none", "key"])).required("mode");
    let example =
        json!({"mode": "pull", "start": "latest", "filter": {"prefix": {"kind": "order-"}}, "ack_deadline": "30s"});
    let created = on("createSubscription", "Creates a subscription.").parameter(if_match());
    let body = json_body(settings, example, Required::True);
    let created =
        with_body(created, body, &[Code::Exists, Code::PreconditionFailed, Code::BlockedTarget, Code::ConsentRefused]);
    let created = with_subscription(created, "201", "It was created.");
    with_subscription(created, "200", "It was there, of the same owner with the same settings.")
}

fn alter() -> OperationBuilder {
    let altered = on("alterSubscription", "Changes settings (JSON merge patch); the position stays.");
    let body = merge_patch(settings(), json!({"ack_deadline": "1m"}));
    let altered = with_body(
        altered.parameter(if_match()),
        body,
        &[Code::PreconditionFailed, Code::BlockedTarget, Code::ConsentRefused],
    );
    with_subscription(altered, "200", "The subscription.")
}

fn verb(id: &str, summary: &str) -> OperationBuilder {
    let body = json_body(ObjectBuilder::new(), json!({}), Required::False);
    with_subscription(with_body(on(id, summary), body, &[]), "200", "The subscription.")
}

fn seek() -> OperationBuilder {
    let to = ObjectBuilder::new().property("to", start()).required("to");
    let moved = on("seekSubscription", "Seeks to a position; drops all retries and leases.");
    let body = json_body(to, json!({"to": "earliest"}), Required::True);
    with_subscription(with_body(moved, body, &[]), "200", "The subscription.")
}
