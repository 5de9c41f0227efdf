//! The OpenAPI documentation of the command service.

use http::header::{CACHE_CONTROL, CONTENT_ENCODING};
use millrace_base::limits::{MAX_EVENT_ID_BYTES, MAX_USER_BYTES};
use millrace_contracts::{Code, Kind};
use millrace_service::http::{IDEMPOTENCY_KEY, ItemResult, PREFER, PREFERENCE_APPLIED, RESPOND_ASYNC};
use millrace_service::openapi::{
    self, EVERY_REQUEST, answer, fixed, get, header, idempotency_key_text, maybe_header, number, object, operation,
    or_results, problems, query, request_header, some, text, words,
};
use serde_json::{Value, json};
use utoipa::openapi::content::{Content, ContentBuilder};
use utoipa::openapi::path::{Parameter, PathItem};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, KnownFormat, ObjectBuilder, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{HttpMethod, OpenApi, Ref, RefOr, Required, ResponseBuilder, Schema};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::event_id;
use crate::Config;
use crate::app::POSITION;

const EVENTS: &str = "Events";

/// The codes with which any event may be refused: for its parameters or fields, or by the log.
const EVENT: &[Code] = &[
    Code::MissingField,
    Code::DuplicateField,
    Code::InvalidField,
    Code::InvalidEncoding,
    Code::OutsideWindow,
    Code::TooLarge,
    Code::Unavailable,
    Code::DiskFull,
    Code::ShuttingDown,
    Code::OutcomeUnknown,
];

/// The codes with which the body of one event may be refused.
const SINGLE_BODY: &[Code] = &[Code::MalformedBody, Code::UnsupportedMediaType, Code::UnsupportedEncoding];

/// The codes with which the body of a batch may be refused as a whole.
const BODY: &[Code] = &[Code::MalformedBody, Code::TooManyItems, Code::UnsupportedMediaType, Code::UnsupportedEncoding];

const CLOUD_EVENT: &str = "application/cloudevents+json";

const EXAMPLE_MS: i64 = 1_795_248_000_000;

pub(super) fn document() -> OpenApi {
    let mut document = openapi::document("Millrace, write side", "Takes events, and answers when they are durable.");
    let components = document.components.get_or_insert_default();
    components.schemas.insert(ItemResult::name().into_owned(), ItemResult::schema());
    document
}

/// `POST /analytics`
pub(crate) fn single(config: &Config) -> PathItem {
    let about = "The fields are in the query string, in the body, or some in each; one that is in both is refused by its name. `user` is \
                 required, and the kind: `click` or `impression` without a value, or `event`, exactly one of the three. `timestamp` is \
                 required without a body; with one it defaults to now. JSON with the header `ce-specversion` is the data of a CloudEvent.";
    let operation = operation("postEvent", EVENTS, "Records one event.")
        .description(Some(about))
        .parameter(timestamp(config, " Default, with a body: now."))
        .parameter(user(Required::False))
        .parameter(kind("click"))
        .parameter(kind("impression"))
        .parameter(query("event", Required::False, "The kind by its name.", kinds()))
        .parameter(event_id())
        .parameter(content_encoding())
        .parameter(idempotency_key(MAX_EVENT_ID_BYTES))
        .parameter(prefer())
        .request_body(Some(single_body(config)))
        .response(
            "204",
            position(true, ResponseBuilder::new().description("The event is in the log, at that position.")),
        )
        .response("202", applied(position(false, answer(WEAKER))));
    let codes = [EVERY_REQUEST, EVENT, SINGLE_BODY, &[Code::UnknownField]].concat();
    PathItem::new(HttpMethod::Post, problems(operation, &codes))
}

fn batch_body(config: &Config) -> RequestBody {
    let max = Some(config.max_batch_items);
    let example = json!([{"timestamp": EXAMPLE_MS, "user": "ann", "event": "click"}]);
    let lines = "{\"timestamp\":1795248000000,\"user\":\"ann\",\"event\":\"click\"}\n";
    let records = "timestamp,user,event\n1795248000000,ann,click\n";
    let events = ArrayBuilder::new().items(cloud_event(config)).max_items(max);
    let text_with = |about: &str, example: &str| {
        ContentBuilder::new().schema(Some(text().description(Some(about)))).example(Some(example.into())).build()
    };
    RequestBodyBuilder::new()
        .required(Some(Required::True))
        .content(
            "application/json",
            ContentBuilder::new()
                .schema(Some(ArrayBuilder::new().items(item(config)).max_items(max)))
                .example(Some(example))
                .build(),
        )
        .content("application/x-ndjson", text_with("An item a line; blank lines are ignored.", lines))
        .content("text/csv", text_with("A header line with the names of the fields, then an item a record.", records))
        .content(
            "application/cbor",
            some(text().description(Some("The array in CBOR (RFC 8949): maps with texts and unsigned integers."))),
        )
        .content(
            "application/cloudevents-batch+json",
            ContentBuilder::new().schema(Some(events)).example(Some(json!([cloud_event_example()]))).build(),
        )
        .content(CLOUD_EVENT, cloud_event_content(config))
        .build()
}

/// One CloudEvent of the JSON format.
fn cloud_event(config: &Config) -> ObjectBuilder {
    let attribute = || text().min_length(Some(1));
    let fields = object(&[("user", name(MAX_USER_BYTES, "ann").into())], &fields(config))
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let required = [
        ("specversion", words(["1.0"]).into()),
        ("id", attribute().description(Some("With `source` the id of the event.")).into()),
        ("source", attribute().into()),
        ("type", attribute().description(Some("Ends in `click` or `impression`, unless the data has `event`.")).into()),
        ("data", fields.into()),
    ];
    let or_null = |text: ObjectBuilder| text.schema_type(SchemaType::from_iter([Type::String, Type::Null]));
    let time = or_null(text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime))));
    let content_type = or_null(text().examples(["application/json"]));
    object(&required, &[("time", time.into()), ("datacontenttype", content_type.into())])
}

fn cloud_event_content(config: &Config) -> Content {
    ContentBuilder::new().schema(Some(cloud_event(config))).example(Some(cloud_event_example())).build()
}

fn cloud_event_example() -> Value {
    json!({"specversion": "1.0", "id": "17", "source": "/shop", "type": "com.example.click",
        "time": "2026-11-21T08:00:00Z", "data": {"user": "ann"}})
}

/// The fields of an event, but its user.
fn fields(config: &Config) -> [(&'static str, RefOr<Schema>); 3] {
    [
        ("timestamp", earliest(config).into()),
        ("event", kinds().into()),
        ("event_id", name(MAX_EVENT_ID_BYTES, "order-17").into()),
    ]
}

fn single_body(config: &Config) -> RequestBody {
    let fields = [&fields(config)[..], &[("user", name(MAX_USER_BYTES, "ann").into())]].concat();
    let flags = [("click", words([""]).into()), ("impression", words([""]).into())];
    let form = object(&[], &[&fields[..], &flags[..]].concat());
    let content = |schema: ObjectBuilder, example: Value| {
        let schema = schema.additional_properties(Some(AdditionalProperties::FreeForm(false)));
        ContentBuilder::new().schema(Some(schema)).example(Some(example)).build()
    };
    RequestBodyBuilder::new()
        .description(Some("The fields that are not in the query string."))
        .required(Some(Required::False))
        .content(
            "application/json",
            content(object(&[], &fields), json!({"timestamp": EXAMPLE_MS, "user": "ann", "event": "click"})),
        )
        .content("application/x-www-form-urlencoded", content(form, json!({"user": "ann", "event": "click"})))
        .content(CLOUD_EVENT, cloud_event_content(config))
        .build()
}

/// `POST /analytics/batch`
pub(crate) fn batch(config: &Config) -> PathItem {
    let results = some(ArrayBuilder::new().items(Ref::from_schema_name(ItemResult::name())));
    let result = |description: &str| answer(description).content("application/json", results.clone());
    let limits = &config.limits;
    let about = format!(
        "At most {} items, {} bytes on the wire and {} inflated. JSON with the header `ce-specversion` is the data of one CloudEvent, \
         whose attributes are in headers. The answer has a result for each item, in order. When no \
         item was accepted, its status is that of the first item, or 503 if the server failed for one of them. A body that is not a batch is refused as a whole, with a problem document.",
        config.max_batch_items, limits.max_body_bytes.0, limits.max_inflated_bytes.0
    );
    let mut operation = operation("postBatch", EVENTS, "Records many events.")
        .description(Some(about))
        .parameter(content_encoding())
        .parameter(idempotency_key(event_id::MAX_BATCH_KEY_BYTES))
        .parameter(prefer())
        .request_body(Some(batch_body(config)))
        .response("200", positions(result("Every item was accepted.")))
        .response("202", applied(positions(result(WEAKER))))
        .response("207", applied(positions(result("Some items were accepted."))));
    operation = problems(operation, &[EVERY_REQUEST, EVENT, BODY, &[Code::UnknownField]].concat());
    PathItem::new(HttpMethod::Post, or_results(operation, EVENT, &results))
}

/// `GET /pixel.gif`
pub(crate) fn pixel(config: &Config) -> PathItem {
    let operation = operation("pixel", EVENTS, "Records an impression from a web page.")
        .description(Some("Unknown parameters are ignored. HEAD is refused: it displays nothing."))
        .parameter(user(Required::True))
        .parameter(timestamp(config, " Default: now."))
        .parameter(event_id())
        .parameter(idempotency_key(MAX_EVENT_ID_BYTES))
        .parameter(prefer())
        .response(
            "200",
            applied(position(false, answer("A transparent pixel, with any durability.")))
                .header(CACHE_CONTROL.as_str(), fixed("no-store"))
                .content("image/gif", some(text().content_media_type("image/gif"))),
        );
    let mut item = get(problems(operation, &[EVERY_REQUEST, EVENT].concat()));
    item.head = None;
    item
}

const WEAKER: &str = "Accepted with a weaker durability than all replicas, which the operator configured or allows a \
                      request to prefer.";

fn content_encoding() -> Parameter {
    request_header(&CONTENT_ENCODING, "Of the body.", words(["identity", "gzip", "br", "zstd"]))
}

fn timestamp(config: &Config, default: &str) -> Parameter {
    let ahead = config.event_window.future_tolerance.0.as_secs();
    let about = format!("Milliseconds since the epoch, at most {ahead} seconds ahead.{default}");
    query("timestamp", Required::False, &about, earliest(config))
}

fn earliest(config: &Config) -> ObjectBuilder {
    let earliest = usize::try_from(config.event_window.accept_from_ms).unwrap_or(usize::MAX);
    number().minimum(Some(earliest)).maximum(Some(isize::MAX)).examples([EXAMPLE_MS])
}

fn user(required: Required) -> Parameter {
    query("user", required, "1 to 256 bytes of UTF-8.", name(MAX_USER_BYTES, "ann"))
}

fn event_id() -> Parameter {
    let about = "The client's own id of the event. Within the deduplication window, events of a user with the same id count once.";
    query("event_id", Required::False, about, name(MAX_EVENT_ID_BYTES, "order-17"))
}

/// Text without control characters. `max` is a bound of bytes; a character has one or more.
fn name(max: usize, example: &str) -> ObjectBuilder {
    text()
        .examples([example])
        .min_length(Some(1))
        .max_length(Some(max))
        .pattern(Some(r"^[^\u0000-\u001f\u007f-\u009f]+$"))
}

fn kind(name: &str) -> Parameter {
    query(name, Required::False, "Without a value.", words([""]))
}

fn kinds() -> ObjectBuilder {
    words([Kind::Click, Kind::Impression].map(Kind::as_str))
}

fn idempotency_key(max: usize) -> Parameter {
    let about = "`event_id` as a header: a string in double quotes, or a bare word. Of a batch: the prefix of its items' ids, before \
                 a slash and their index.";
    request_header(&IDEMPOTENCY_KEY, about, idempotency_key_text(max))
}

fn prefer() -> Parameter {
    let about = format!(
        "`{RESPOND_ASYNC}` requests an answer before the log's report (RFC 7240), where the operator allows it."
    );
    request_header(&PREFER, &about, text())
}

/// An item of a batch.
fn item(config: &Config) -> ObjectBuilder {
    let required = [
        ("timestamp", earliest(config).into()),
        ("user", name(MAX_USER_BYTES, "ann").into()),
        ("event", kinds().into()),
    ];
    object(&required, &[("event_id", name(MAX_EVENT_ID_BYTES, "order-17").into())])
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

fn position(required: bool, response: ResponseBuilder) -> ResponseBuilder {
    let about = "The position of the event in the log: `{topic}/{partition}@{offset}`.";
    let pattern = text().pattern(Some(r"^.+/\d+@\d+$"));
    let position = if required { header(about, pattern) } else { maybe_header(about, pattern) };
    response.header(POSITION.as_str(), position)
}

/// The header of a batch: the position that its reader waits for.
fn positions(response: ResponseBuilder) -> ResponseBuilder {
    let about = "One position of all accepted events: `{topic}/{partition}@{offset}`, and `,{partition}@{offset}` for each further \
                 partition, with the highest offset of each.";
    response.header(POSITION.as_str(), maybe_header(about, text().pattern(Some(r"^.+/\d+@\d+(,\d+@\d+)*$"))))
}

fn applied(response: ResponseBuilder) -> ResponseBuilder {
    let about = "The preference of the request that was applied.";
    response.header(PREFERENCE_APPLIED.as_str(), maybe_header(about, words([RESPOND_ASYNC])))
}
