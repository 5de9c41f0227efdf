//! Messages: publish, pull, acknowledge.

use http::HeaderName;
use http::header::CONTENT_SECURITY_POLICY;
use millrace_contracts::Code;
use millrace_service::http::{IDEMPOTENCY_KEY, PREFER, PREFERENCE_APPLIED, RESPOND_ASYNC};
use millrace_service::openapi::{
    flag, idempotency_key_text, maybe_header, number, object, or_results, query, request_header, some, text, words,
};
use serde_json::{Value, json};
use utoipa::ToSchema as _;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{OperationBuilder, Parameter};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder};
use utoipa::openapi::{HttpMethod, Ref, Required, ResponseBuilder};

use super::Operation;
use super::parts::{BODY, empty, fresh, json_body, on_subscription, on_topic, refusals, with_body};
use super::schemas::{anything, duration, duration_or_empty, null, or_null, time};
use crate::topics::batch::{MAX_ITEMS, ResultBody};
use crate::topics::message::{MAX_ATTRIBUTE_BYTES, MAX_ATTRIBUTES, MAX_CONTENT_TYPE, MAX_IDEMPOTENCY_KEY, MAX_KEY};
use crate::topics::pull::MAX_MESSAGES;
use crate::topics::settle::MAX_TOKENS;

const MESSAGES: &str = "Messages";

/// What a message may be refused with, beside what every call may be.
const MESSAGE: &[Code] = &[Code::TooLarge, Code::KeyReused, Code::OutsideWindow, Code::TooManyDelayed];
/// What an item of a batch may be refused with.
const ITEM: &[Code] = &[
    Code::InvalidField,
    Code::MissingField,
    Code::DuplicateField,
    Code::UnknownField,
    Code::MalformedBody,
    Code::InvalidEncoding,
    Code::Forbidden,
    Code::TooLarge,
    Code::KeyReused,
    Code::OutsideWindow,
    Code::TooManyDelayed,
    Code::Unavailable,
    Code::DiskFull,
    Code::ShuttingDown,
    Code::OutcomeUnknown,
];

pub(super) fn operations() -> Vec<Operation> {
    let on_tokens = |verb, operation| (verb, HttpMethod::Post, operation);
    vec![
        ("/v1/topics/{topic}/messages", HttpMethod::Post, publish()),
        ("/v1/topics/{topic}/messages:batch", HttpMethod::Post, publish_batch()),
        ("/v1/topics/{topic}/subscriptions/{subscription}/messages", HttpMethod::Get, pull()),
        on_tokens("/v1/topics/{topic}/subscriptions/{subscription}:ack", ack()),
        on_tokens("/v1/topics/{topic}/subscriptions/{subscription}:nack", nack()),
        on_tokens("/v1/topics/{topic}/subscriptions/{subscription}:extend", extend()),
    ]
}

/// Printable ASCII, 1 to `max` bytes; without spaces at its ends, which a header loses.
fn printable(max: usize) -> ObjectBuilder {
    text().max_length(Some(max)).pattern(Some("^[!-~]([ -~]*[!-~])?$"))
}

fn prefer() -> Parameter {
    let about = format!("`{RESPOND_ASYNC}`, where the operator allows it.");
    request_header(&PREFER, &about, text())
}

fn publish() -> OperationBuilder {
    let named = HeaderName::from_static;
    let about = format!(
        "Attributes are headers `X-Attr-{{name}}` and `ce-*`, at most {MAX_ATTRIBUTES} and {MAX_ATTRIBUTE_BYTES} bytes."
    );
    let once = "A repeat within 10 minutes is answered with the first one's position.";
    let key = idempotency_key_text(MAX_IDEMPOTENCY_KEY);
    let body = RequestBodyBuilder::new()
        .content("text/plain", some(text()))
        .content("application/octet-stream", some(text()))
        .content("application/json", some(anything()))
        .required(Some(Required::False))
        .build();
    let published = on_topic("publishMessage", MESSAGES, "Publishes a message: the body, of any media type.")
        .description(Some(about))
        .parameter(request_header(&named("x-key"), "Messages with one key keep their order.", printable(MAX_KEY)))
        .parameter(request_header(&IDEMPOTENCY_KEY, once, key))
        .parameter(request_header(&named("x-deliver-after"), "Publishes the message so much later.", duration("0s")))
        .parameter(request_header(&named("x-deliver-at"), "Publishes the message at this time.", time()))
        .parameter(prefer())
        .request_body(Some(body))
        .response("201", with_publication(fresh("It is durable in the log.")))
        .response("200", with_publication(fresh("It was published before, under the same idempotency key.")))
        .response("202", with_publication(applied(fresh("It is accepted at a weaker level of durability."))));
    refusals(published, &[MESSAGE, &[Code::UnsupportedEncoding, Code::MalformedBody]].concat())
}

fn with_publication(response: ResponseBuilder) -> ResponseBuilder {
    let example = json!({"topic": "orders", "partition": 0, "offset": 7, "id": "0198c2d5f6a87bb1b0a4d1c9a3f0e412",
        "published_at": "2026-11-29T12:00:00.000Z", "duplicate": false});
    let schema = object(
        &[
            ("topic", text().into()),
            ("partition", number().into()),
            ("offset", or_null(number()).into()),
            ("id", text().into()),
            ("published_at", text().into()),
            ("duplicate", flag().into()),
        ],
        &[],
    );
    response.content("application/json", ContentBuilder::new().schema(Some(schema)).example(Some(example)).build())
}

fn applied(response: ResponseBuilder) -> ResponseBuilder {
    let about = "The preference of the request that was applied.";
    response.header(PREFERENCE_APPLIED.as_str(), maybe_header(about, words([RESPOND_ASYNC])))
}

fn item() -> ObjectBuilder {
    let values = AdditionalProperties::RefOr(text().max_length(Some(1_024)).pattern(Some("^[ -~]*$")).into());
    ObjectBuilder::new()
        .description(Some("Either `body` or `body_base64` must be given."))
        .property("body", anything().description(Some("The message is these bytes as they are written.")))
        .property("body_base64", text().pattern(Some("^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$")))
        .property("content_type", printable(MAX_CONTENT_TYPE))
        .property(
            "attributes",
            ObjectBuilder::new().additional_properties(Some(values)).max_properties(Some(MAX_ATTRIBUTES)),
        )
        .property("key", printable(MAX_KEY))
        .property("idempotency_key", printable(MAX_IDEMPOTENCY_KEY))
        .property("deliver_after", duration("0s"))
        .property("deliver_at", OneOfBuilder::new().item(time()).item(null()))
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

fn publish_batch() -> OperationBuilder {
    let results = some(ArrayBuilder::new().items(Ref::from_schema_name(ResultBody::name())));
    let result = |description: &str| fresh(description).content("application/json", results.clone());
    let example = json!([{"body": {"order": 7}, "attributes": {"kind": "created"}, "key": "customer-1"}, {"body_base64": "aGVsbG8="}]);
    let array = ArrayBuilder::new().items(item()).min_items(Some(1)).max_items(Some(MAX_ITEMS));
    let array = ContentBuilder::new().schema(Some(array)).example(Some(example)).build();
    let lines = text().description(Some("An item a line; blank lines are ignored."));
    let body = RequestBodyBuilder::new()
        .content("application/json", array)
        .content("application/x-ndjson", some(lines))
        .required(Some(Required::True))
        .build();
    let about = "The answer has a result for each message, in order. When none was published, its status is that of the \
                 first, or 503 if the server failed for one of them.";
    let summary = format!("Publishes up to {MAX_ITEMS} messages.");
    let published = on_topic("publishMessages", MESSAGES, &summary)
        .description(Some(about))
        .parameter(prefer())
        .request_body(Some(body))
        .response("200", result("Every message was published."))
        .response("202", applied(result("Every message was accepted at a weaker level of durability.")))
        .response("207", applied(result("Some messages were published.")));
    let refused = refusals(published, &[BODY, MESSAGE, &[Code::TooManyItems, Code::EmptyBatch]].concat());
    or_results(refused, ITEM, &results)
}

fn pull() -> OperationBuilder {
    let of_one = |about: &str, schema: ObjectBuilder| maybe_header(about, schema);
    let handed = fresh("With `max=1` the message itself, with its own media type, else a message a line.")
        .header("Millrace-Id", of_one("The message's id.", text()))
        .header("Millrace-Offset", of_one("Its offset.", number()))
        .header("Millrace-Published-At", of_one("When it was published.", text()))
        .header("Millrace-Token", of_one("What acknowledges it.", text()))
        .header(
            "Millrace-Attempt",
            of_one("From 1; one more for each negative acknowledgement and ended lease.", number()),
        )
        .header(CONTENT_SECURITY_POLICY.as_str(), of_one("The message may be anybody's HTML.", words(["sandbox"])))
        .header("X-Key", of_one("Its ordering key.", text()))
        .content("*/*", some(text()))
        .content("application/x-ndjson", some(text()));
    let most = number().minimum(Some(1)).maximum(Some(MAX_MESSAGES)).examples([1]);
    let wait = "How long to wait for the first one, at most 30s.";
    let lease = "For how long they are hidden from others, 1s to 12h.";
    let pulled = on_subscription("pullMessages", MESSAGES, "Pulls messages and leases them.")
        .parameter(query("max", Required::False, "Most messages.", most))
        .parameter(query("wait", Required::False, wait, duration("0s")))
        .parameter(query("lease", Required::False, lease, duration_or_empty("30s")))
        .response("200", handed)
        .response("204", empty("There are none."));
    refusals(pulled, &[Code::Suspended, Code::WrongMode])
}

fn tokens() -> ObjectBuilder {
    let list = ArrayBuilder::new().items(text()).min_items(Some(1)).max_items(Some(MAX_TOKENS));
    ObjectBuilder::new().property("tokens", list)
}

fn ack() -> OperationBuilder {
    let about = "The messages of `tokens`, or all up to and including that of `up_to`; one of the two must be given.";
    let body = tokens().property("up_to", text()).description(Some(about));
    settle("ackMessages", "Acknowledges messages.", body, json!({"tokens": ["…"]}))
}

fn nack() -> OperationBuilder {
    let body = tokens().property("delay", duration("5s")).required("tokens");
    settle(
        "nackMessages",
        "Negatively acknowledges messages: they are redelivered.",
        body,
        json!({"tokens": ["…"], "delay": "5s"}),
    )
}

fn extend() -> OperationBuilder {
    let body = tokens().property("lease", duration("30s")).required("tokens").required("lease");
    settle("extendLeases", "Extends leases.", body, json!({"tokens": ["…"], "lease": "30s"}))
}

fn settle(id: &str, summary: &str, body: ObjectBuilder, example: Value) -> OperationBuilder {
    let counts =
        object(&[("acknowledged", number().into()), ("already", number().into()), ("stale", number().into())], &[]);
    let on = on_subscription(id, MESSAGES, summary);
    let settled = with_body(on, json_body(body, example, Required::True), &[Code::StaleToken, Code::InvalidToken]);
    settled.response("200", fresh("For how many tokens it took effect.").content("application/json", some(counts)))
}
