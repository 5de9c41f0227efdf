//! Topics and grants.

use millrace_contracts::Code;
use millrace_service::openapi::{flag, number, operation, part, text};
use serde_json::{Value, json};
use utoipa::ToSchema as _;
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::schema::ObjectBuilder;
use utoipa::openapi::{HttpMethod, Required};

use super::Operation;
use super::parts::{
    deleted, fresh, if_match, json_body, list, merge_patch, on_topic, reference, refusals, tagged, topic, with_body,
};
use super::schemas::{duration, or_null, principal};
use crate::topics::render::{GrantBody, TopicBody};
use crate::topics::topic::{MAX_DESCRIPTION, MAX_MESSAGE_BYTES};

const TOPICS: &str = "Topics";
const TOPIC: &str = "/v1/topics/{topic}";
const GRANT: &str = "/v1/topics/{topic}/grants/{principal}";

pub(super) fn operations() -> Vec<Operation> {
    let listed = list(operation("listTopics", TOPICS, "Lists topics by name."), "topics", TopicBody::name());
    let described = refusals(on_topic("describeTopic", TOPICS, "Describes a topic."), &[]);
    let gone = operation("deleteTopic", TOPICS, "Deletes a topic; its subscriptions end.").parameter(topic("retired"));
    let revoked = on_grant("revokeGrant", "Revokes the rights of a principal.");
    vec![
        ("/v1/topics", HttpMethod::Get, listed),
        (TOPIC, HttpMethod::Put, create()),
        (TOPIC, HttpMethod::Get, with_topic(described, "200", "The topic.")),
        (TOPIC, HttpMethod::Patch, alter()),
        (TOPIC, HttpMethod::Delete, deleted(gone)),
        (GRANT, HttpMethod::Put, grant()),
        (GRANT, HttpMethod::Delete, deleted(revoked)),
    ]
}

fn on_grant(id: &str, summary: &str) -> OperationBuilder {
    on_topic(id, TOPICS, summary).parameter(part("principal", "The principal.", principal()))
}

fn with_topic(operation: OperationBuilder, status: &str, description: &str) -> OperationBuilder {
    operation.response(status, tagged(description).content("application/json", reference(&TopicBody::name())))
}

/// The settings; `each` makes those nullable that a merge patch may reset.
fn settings(each: impl Fn(ObjectBuilder) -> ObjectBuilder) -> ObjectBuilder {
    let bytes = number().minimum(Some(1)).maximum(isize::try_from(MAX_MESSAGE_BYTES).ok());
    ObjectBuilder::new()
        .property("retention", each(duration("72h")))
        .property("delay", each(duration("0s")))
        .property("max_message_bytes", each(bytes))
        .property("description", each(text().description(Some(format!("At most {MAX_DESCRIPTION} bytes.")))))
}

fn example() -> Value {
    json!({"retention": "72h", "delay": "0s", "max_message_bytes": 131_072, "description": "orders of the shop"})
}

fn create() -> OperationBuilder {
    let created = on_topic("createTopic", TOPICS, "Creates a topic.").parameter(if_match());
    let body = json_body(settings(|setting| setting), example(), Required::False);
    let refused = [Code::Exists, Code::NameResting, Code::PreconditionFailed];
    let created = with_topic(with_body(created, body, &refused), "201", "It was created.");
    with_topic(created, "200", "It was there, of the same owner with the same settings.")
}

fn alter() -> OperationBuilder {
    let altered = on_topic("alterTopic", TOPICS, "Changes settings (JSON merge patch); null restores the default.");
    let body = merge_patch(settings(or_null), json!({"retention": "24h"}));
    let altered = with_body(altered.parameter(if_match()), body, &[Code::PreconditionFailed]);
    with_topic(altered, "200", "The topic.")
}

fn grant() -> OperationBuilder {
    let rights =
        ObjectBuilder::new().property("publish", flag()).property("subscribe", flag()).property("manage", flag());
    let granted = on_grant("putGrant", "Grants rights to a principal.").parameter(if_match());
    let body = json_body(rights, json!({"publish": true}), Required::False);
    let answer = fresh("The rights.").content("application/json", reference(&GrantBody::name()));
    with_body(granted, body, &[Code::PreconditionFailed]).response("200", answer)
}
