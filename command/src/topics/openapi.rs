//! The OpenAPI document of topics and subscriptions.

use std::sync::Arc;

use http::HeaderName;
use http::header::IF_MATCH;
use millrace_contracts::Code;
use millrace_service::http::{IDEMPOTENCY_KEY, PREFER};
use millrace_service::openapi::{
    EVERY_REQUEST, answer, flag, get, header, maybe_header, number, object, operation, part, problems, query,
    request_header, some, text, words,
};
use serde_json::json;
use utoipa::openapi::content::{Content, ContentBuilder};
use utoipa::openapi::path::{OperationBuilder, Parameter};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder};
use utoipa::openapi::{HttpMethod, Ref, RefOr, Required, Schema};
use utoipa::{PartialSchema as _, ToSchema};
use utoipa_axum::router::OpenApiRouter;

use super::batch::ResultBody;
use super::render::{GrantBody, PositionBody, SettingsBody, SubscriptionBody, TopicBody};
use crate::app::App;

const TOPICS: &str = "Topics";
const MESSAGES: &str = "Messages";
const SUBSCRIPTIONS: &str = "Subscriptions";

/// What every call to a coordinator may be refused with.
const CALL: &[Code] = &[
    Code::InvalidField,
    Code::InvalidEncoding,
    Code::UnknownField,
    Code::DuplicateField,
    Code::NotFound,
    Code::Forbidden,
    Code::Unavailable,
    Code::OutcomeUnknown,
    Code::DiskFull,
    Code::ShuttingDown,
];
/// What a call with a JSON body may be refused with, too.
const BODY: &[Code] =
    &[Code::MalformedBody, Code::MissingField, Code::TooLarge, Code::UnsupportedMediaType, Code::UnsupportedEncoding];

/// Adds the document to the routes.
pub(super) fn describe(mut routes: OpenApiRouter<Arc<App>>) -> OpenApiRouter<Arc<App>> {
    let document = routes.get_openapi_mut();
    let schemas = &mut document.components.get_or_insert_default().schemas;
    let mut put =
        |name: std::borrow::Cow<'static, str>, schema: RefOr<Schema>| schemas.insert(name.into_owned(), schema);
    put(TopicBody::name(), TopicBody::schema());
    put(SettingsBody::name(), SettingsBody::schema());
    put(GrantBody::name(), GrantBody::schema());
    put(SubscriptionBody::name(), SubscriptionBody::schema());
    put(PositionBody::name(), PositionBody::schema());
    put(ResultBody::name(), ResultBody::schema());
    for (path, method, operation) in operations() {
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

const TOPIC_PATH: &str = "/v1/topics/{topic}";
const GRANT_PATH: &str = "/v1/topics/{topic}/grants/{principal}";
const SUBSCRIPTION_PATH: &str = "/v1/topics/{topic}/subscriptions/{subscription}";

fn operations() -> Vec<(&'static str, HttpMethod, OperationBuilder)> {
    vec![
        (
            "/v1/topics",
            HttpMethod::Get,
            list("listTopics", TOPICS, "Lists topics by name.", "topics", TopicBody::name()),
        ),
        (TOPIC_PATH, HttpMethod::Put, create_topic()),
        (
            TOPIC_PATH,
            HttpMethod::Get,
            topic_answer(refusals(on_topic("describeTopic", "Describes a topic."), &[]), "200"),
        ),
        (TOPIC_PATH, HttpMethod::Patch, alter_topic()),
        (
            TOPIC_PATH,
            HttpMethod::Delete,
            deleted(on_topic("deleteTopic", "Deletes a topic; its subscriptions end."), &[Code::PreconditionFailed]),
        ),
        (GRANT_PATH, HttpMethod::Put, grant()),
        (
            GRANT_PATH,
            HttpMethod::Delete,
            deleted(on_grant("revokeGrant", "Takes the rights of a principal back."), &[Code::PreconditionFailed]),
        ),
        ("/v1/topics/{topic}/messages", HttpMethod::Post, publish()),
        ("/v1/topics/{topic}/messages:batch", HttpMethod::Post, publish_batch()),
        ("/v1/topics/{topic}/subscriptions", HttpMethod::Get, list_subscriptions()),
        (SUBSCRIPTION_PATH, HttpMethod::Put, create_subscription()),
        (
            SUBSCRIPTION_PATH,
            HttpMethod::Get,
            subscription_answer(
                refusals(on_subscription("describeSubscription", "Describes a subscription."), &[]),
                "200",
            ),
        ),
        (SUBSCRIPTION_PATH, HttpMethod::Patch, alter_subscription()),
        (
            SUBSCRIPTION_PATH,
            HttpMethod::Delete,
            deleted(on_subscription("deleteSubscription", "Deletes a subscription."), &[Code::PreconditionFailed]),
        ),
        (
            "/v1/topics/{topic}/subscriptions/{subscription}:suspend",
            HttpMethod::Post,
            verb("suspendSubscription", "Suspends a subscription; its position stays."),
        ),
        (
            "/v1/topics/{topic}/subscriptions/{subscription}:resume",
            HttpMethod::Post,
            verb("resumeSubscription", "Resumes a subscription."),
        ),
        ("/v1/topics/{topic}/subscriptions/{subscription}:seek", HttpMethod::Post, seek()),
        ("/v1/topics/{topic}/subscriptions/{subscription}/messages", HttpMethod::Get, pull()),
        (
            "/v1/topics/{topic}/subscriptions/{subscription}:ack",
            HttpMethod::Post,
            tokens("ackMessages", "Acknowledges messages.", ack_body()),
        ),
        (
            "/v1/topics/{topic}/subscriptions/{subscription}:nack",
            HttpMethod::Post,
            tokens("nackMessages", "Returns messages for a later try.", nack_body()),
        ),
        (
            "/v1/topics/{topic}/subscriptions/{subscription}:extend",
            HttpMethod::Post,
            tokens("extendLeases", "Extends leases.", extend_body()),
        ),
    ]
}

fn name() -> ObjectBuilder {
    text().max_length(Some(127)).pattern(Some(r#"^[^\s<>.?:;"*|\\/]{1,127}$"#))
}

fn on_topic(id: &str, summary: &str) -> OperationBuilder {
    operation(id, TOPICS, summary).parameter(part("topic", "The topic's name.", name()))
}

fn on_grant(id: &str, summary: &str) -> OperationBuilder {
    on_topic(id, summary).parameter(part(
        "principal",
        "The principal.",
        text().min_length(Some(1)).max_length(Some(256)),
    ))
}

fn on_subscription(id: &str, summary: &str) -> OperationBuilder {
    operation(id, SUBSCRIPTIONS, summary).parameter(part("topic", "The topic's name.", name())).parameter(part(
        "subscription",
        "The subscription's name.",
        name(),
    ))
}

fn refusals(operation: OperationBuilder, more: &[Code]) -> OperationBuilder {
    problems(operation, &[EVERY_REQUEST, CALL, more].concat())
}

fn with_body(operation: OperationBuilder, body: RequestBody, more: &[Code]) -> OperationBuilder {
    refusals(operation.request_body(Some(body)), &[BODY, more].concat())
}

fn json_body(schema: ObjectBuilder, example: serde_json::Value, required: bool) -> RequestBody {
    let content = ContentBuilder::new()
        .schema(Some(schema.additional_properties(Some(AdditionalProperties::FreeForm(false)))))
        .example(Some(example))
        .build();
    let required = if required { Required::True } else { Required::False };
    RequestBodyBuilder::new().content("application/json", content).required(Some(required)).build()
}

fn etag() -> utoipa::openapi::header::Header {
    header("Changes with settings and grants.", text())
}

fn reference(name: &str) -> Content {
    some(Ref::from_schema_name(name))
}

fn topic_answer(operation: OperationBuilder, status: &str) -> OperationBuilder {
    operation.response(
        status,
        answer("The topic.").header("ETag", etag()).content("application/json", reference(&TopicBody::name())),
    )
}

fn subscription_answer(operation: OperationBuilder, status: &str) -> OperationBuilder {
    let found = answer("The subscription.").header("ETag", etag());
    operation.response(status, found.content("application/json", reference(&SubscriptionBody::name())))
}

fn if_match() -> Parameter {
    request_header(&IF_MATCH, "The ETag that it must have.", text())
}

fn deleted(operation: OperationBuilder, more: &[Code]) -> OperationBuilder {
    let gone = utoipa::openapi::ResponseBuilder::new().description("Done.");
    refusals(operation.parameter(if_match()).response("204", gone), more)
}

fn list(id: &str, group: &str, summary: &str, member: &str, item: std::borrow::Cow<'static, str>) -> OperationBuilder {
    let page = object(
        &[(member, ArrayBuilder::new().items(Ref::from_schema_name(item.into_owned())).into())],
        &[("next", name().into())],
    );
    let listed = operation(id, group, summary)
        .parameter(query("prefix", Required::False, "Only names that begin with this.", text()))
        .parameter(query(
            "limit",
            Required::False,
            "Most items of the page.",
            number().minimum(Some(1)).maximum(Some(1_000)),
        ))
        .parameter(query("after", Required::False, "Only names after this one: `next` of the page before.", text()))
        .response("200", answer("A page.").content("application/json", some(page)));
    refusals(listed, &[])
}

fn list_subscriptions() -> OperationBuilder {
    let listed = list(
        "listSubscriptions",
        SUBSCRIPTIONS,
        "Lists a topic's subscriptions by name.",
        "subscriptions",
        SubscriptionBody::name(),
    );
    listed.parameter(part("topic", "The topic's name.", name()))
}

fn topic_settings() -> ObjectBuilder {
    ObjectBuilder::new()
        .property("retention", text())
        .property("delay", text())
        .property("max_message_bytes", number().minimum(Some(1)).maximum(Some(1_048_576)))
        .property("description", text().max_length(Some(4_096)))
}

fn topic_example() -> serde_json::Value {
    json!({"retention": "72h", "delay": "0s", "max_message_bytes": 131_072, "description": "orders of the shop"})
}

fn create_topic() -> OperationBuilder {
    let created = on_topic("createTopic", "Creates a topic. The same settings by the same owner again: 200.")
        .parameter(if_match());
    let created = with_body(
        created,
        json_body(topic_settings(), topic_example(), false),
        &[Code::Exists, Code::NameResting, Code::PreconditionFailed],
    );
    topic_answer(topic_answer(created, "200"), "201")
}

fn alter_topic() -> OperationBuilder {
    let altered = on_topic("alterTopic", "Changes settings (JSON merge patch).").parameter(if_match());
    topic_answer(
        with_body(
            altered,
            json_body(topic_settings(), json!({"retention": "24h"}), false),
            &[Code::PreconditionFailed],
        ),
        "200",
    )
}

fn grant() -> OperationBuilder {
    let rights =
        ObjectBuilder::new().property("publish", flag()).property("subscribe", flag()).property("manage", flag());
    let granted = on_grant("putGrant", "Grants rights to a principal.").parameter(if_match());
    let granted = with_body(granted, json_body(rights, json!({"publish": true}), false), &[Code::PreconditionFailed]);
    granted.response("200", answer("The rights.").content("application/json", reference(&GrantBody::name())))
}

fn message_headers(operation: OperationBuilder) -> OperationBuilder {
    let named = |name: &'static str| HeaderName::from_static(name);
    operation
        .parameter(request_header(&named("x-key"), "Messages with one key keep their order.", text()))
        .parameter(request_header(
            &IDEMPOTENCY_KEY,
            "A repeat within 10 minutes is answered with the first one's position.",
            text(),
        ))
        .parameter(request_header(&named("x-deliver-after"), "Publishes the message so much later.", text()))
        .parameter(request_header(&named("x-deliver-at"), "Publishes the message at this time.", text()))
        .parameter(request_header(&PREFER, "`respond-async`, where the operator allows it.", text()))
}

fn publish() -> OperationBuilder {
    let example = json!({"topic": "orders", "partition": 0, "offset": 7, "id": "0198c2d5f6a87bb1b0a4d1c9a3f0e412",
        "published_at": "2026-11-29T12:00:00.000Z", "duplicate": false});
    let content = || {
        let schema = object(
            &[
                ("topic", text().into()),
                ("partition", number().into()),
                ("id", text().into()),
                ("published_at", text().into()),
                ("duplicate", flag().into()),
            ],
            &[("offset", number().into())],
        );
        ContentBuilder::new().schema(Some(schema)).example(Some(example.clone())).build()
    };
    let body = RequestBodyBuilder::new().content("*/*", some(text())).required(Some(Required::False)).build();
    let published = operation("publishMessage", MESSAGES, "Publishes a message: the body, of any type.")
        .description(Some("Attributes are headers `X-Attr-{name}` and `ce-*`, at most 50 and 8 KiB."))
        .parameter(part("topic", "The topic's name.", name()));
    let published = message_headers(published)
        .request_body(Some(body))
        .response("201", answer("Durable in the log.").content("application/json", content()))
        .response(
            "200",
            answer("It was published before, under the same idempotency key.").content("application/json", content()),
        )
        .response("202", answer("Accepted at a weaker level of durability.").content("application/json", content()));
    refusals(
        published,
        &[
            Code::TooLarge,
            Code::KeyReused,
            Code::OutsideWindow,
            Code::TooManyDelayed,
            Code::UnsupportedEncoding,
            Code::MalformedBody,
        ],
    )
}

fn publish_batch() -> OperationBuilder {
    let results = || some(ArrayBuilder::new().items(Ref::from_schema_name(ResultBody::name())));
    let item = ObjectBuilder::new()
        .property("body", Schema::default())
        .property("body_base64", text())
        .property("content_type", text())
        .property(
            "attributes",
            ObjectBuilder::new().additional_properties(Some(AdditionalProperties::RefOr(text().into()))),
        )
        .property("key", text())
        .property("idempotency_key", text())
        .property("deliver_after", text())
        .property("deliver_at", Schema::default());
    let example = json!([{"body": {"order": 7}, "attributes": {"kind": "created"}, "key": "customer-1"}, {"body_base64": "aGVsbG8="}]);
    let array = ContentBuilder::new()
        .schema(Some(ArrayBuilder::new().items(item).min_items(Some(1)).max_items(Some(1_000))))
        .example(Some(example))
        .build();
    let body = RequestBodyBuilder::new()
        .content("application/json", array)
        .content("application/x-ndjson", some(text()))
        .required(Some(Required::True))
        .build();
    let published = operation("publishMessages", MESSAGES, "Publishes up to 1,000 messages.")
        .parameter(part("topic", "The topic's name.", name()))
        .parameter(request_header(&PREFER, "`respond-async`, where the operator allows it.", text()))
        .request_body(Some(body))
        .response("200", answer("Every message was published.").content("application/json", results()))
        .response("202", answer("Accepted at a weaker level of durability.").content("application/json", results()))
        .response("207", answer("Some messages were published.").content("application/json", results()));
    refusals(published, &[BODY, &[Code::TooManyItems, Code::EmptyBatch]].concat())
}

fn subscription_settings() -> ObjectBuilder {
    ObjectBuilder::new()
        .property("mode", words(["pull"]))
        .property("filter", Schema::default())
        .property("ack_deadline", Schema::default())
        .property("max_attempts", Schema::default())
        .property("push", Schema::default())
}

fn create_subscription() -> OperationBuilder {
    let settings = subscription_settings()
        .property("start", Schema::default())
        .property("order", words(["none", "key"]))
        .required("mode");
    let example =
        json!({"mode": "pull", "start": "latest", "filter": {"prefix": {"kind": "order-"}}, "ack_deadline": "30s"});
    let created = on_subscription(
        "createSubscription",
        "Creates a subscription. The same settings by the same owner again: 200.",
    )
    .parameter(if_match());
    let created = with_body(created, json_body(settings, example, true), &[Code::Exists, Code::PreconditionFailed]);
    subscription_answer(subscription_answer(created, "200"), "201")
}

fn alter_subscription() -> OperationBuilder {
    let altered = on_subscription("alterSubscription", "Changes settings (JSON merge patch); the position stays.")
        .parameter(if_match());
    let body = json_body(subscription_settings(), json!({"ack_deadline": "1m"}), false);
    subscription_answer(with_body(altered, body, &[Code::PreconditionFailed]), "200")
}

fn verb(id: &str, summary: &str) -> OperationBuilder {
    subscription_answer(
        with_body(on_subscription(id, summary), json_body(ObjectBuilder::new(), json!({}), false), &[]),
        "200",
    )
}

fn seek() -> OperationBuilder {
    let body = json_body(
        ObjectBuilder::new().property("to", Schema::default()).required("to"),
        json!({"to": "earliest"}),
        true,
    );
    let moved = on_subscription("seekSubscription", "Sets the position; drops all retries and leases.");
    subscription_answer(with_body(moved, body, &[]), "200")
}

fn pull() -> OperationBuilder {
    let always = |description: &str, schema: ObjectBuilder| maybe_header(description, schema);
    let handed = answer("With `max=1` the message itself, else a message a line.")
        .header("Millrace-Id", always("The message's id.", text()))
        .header("Millrace-Offset", always("Its offset.", number()))
        .header("Millrace-Published-At", always("When it was published.", text()))
        .header("Millrace-Token", always("What acknowledges it.", text()))
        .header(
            "Millrace-Attempt",
            always("1, and one more for each negative acknowledgement and ended lease.", number()),
        )
        .content("*/*", some(text()))
        .content("application/x-ndjson", some(text()));
    let pulled = on_subscription("pullMessages", "Hands out messages.")
        .parameter(query("max", Required::False, "Most messages.", number().minimum(Some(1)).maximum(Some(1_000))))
        .parameter(query("wait", Required::False, "How long to wait for the first one, at most 30s.", text()))
        .parameter(query("lease", Required::False, "For how long they are hidden from others, 1s to 12h.", text()))
        .response("200", handed)
        .response("204", utoipa::openapi::ResponseBuilder::new().description("No messages."));
    refusals(pulled, &[Code::Suspended])
}

fn token_list() -> ArrayBuilder {
    ArrayBuilder::new().items(text()).min_items(Some(1)).max_items(Some(1_000))
}

fn ack_body() -> RequestBody {
    json_body(
        ObjectBuilder::new().property("tokens", token_list()).property("up_to", text()),
        json!({"tokens": ["…"]}),
        true,
    )
}

fn nack_body() -> RequestBody {
    json_body(
        ObjectBuilder::new().property("tokens", token_list()).property("delay", text()).required("tokens"),
        json!({"tokens": ["…"], "delay": "5s"}),
        true,
    )
}

fn extend_body() -> RequestBody {
    let schema = ObjectBuilder::new()
        .property("tokens", token_list())
        .property("lease", text())
        .required("tokens")
        .required("lease");
    json_body(schema, json!({"tokens": ["…"], "lease": "30s"}), true)
}

fn tokens(id: &str, summary: &str, body: RequestBody) -> OperationBuilder {
    let counts =
        object(&[("acknowledged", number().into()), ("already", number().into()), ("stale", number().into())], &[]);
    let settled = with_body(on_subscription(id, summary), body, &[Code::StaleToken, Code::InvalidToken]);
    settled.response("200", answer("For how many tokens it took effect.").content("application/json", some(counts)))
}
