//! Building blocks of documents.

use std::collections::BTreeMap;

use ::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, IF_NONE_MATCH, LOCATION, REFERRER_POLICY,
    RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use ::http::{HeaderName, StatusCode};
use millrace_contracts::Code;
use utoipa::ToSchema as _;
use utoipa::openapi::content::{Content, ContentBuilder};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, Type};
use utoipa::openapi::{HttpMethod, Ref, RefOr, Required, ResponseBuilder, Schema};

use crate::auth::RATE_LIMIT_HEADERS;
use crate::http::{ACCEPT_POST, Document, MEDIA_TYPE, REQUEST_ID, REVALIDATE, example};
use crate::status_of;

/// The codes with which the server itself may refuse any request, whatever its route.
pub const EVERY_REQUEST: &[Code] = &[
    Code::BadRequest,
    Code::RequestTimeout,
    Code::UriTooLong,
    Code::HeadersTooLarge,
    Code::RateLimited,
    Code::Internal,
    Code::Overloaded,
    Code::Unavailable,
];

/// An operation with its name, its group and one sentence.
pub fn operation(id: &str, group: &str, summary: &str) -> OperationBuilder {
    OperationBuilder::new().operation_id(Some(id)).tag(group).summary(Some(summary))
}

/// GET, and HEAD, whose response is the same without the body.
pub fn get(operation: impl Into<OperationBuilder>) -> PathItem {
    let get = operation.into().build();
    let mut head = get.clone();
    head.operation_id = get.operation_id.as_ref().map(|id| format!("{id}Head"));
    head.summary = Some("The same without the body.".into());
    head.description = None;
    for response in head.responses.responses.values_mut() {
        if let RefOr::T(response) = response {
            response.content.clear();
        }
    }
    let mut item = PathItem::new(HttpMethod::Get, get);
    item.head = Some(head);
    item
}

/// A response with a body. Browsers must not guess its type.
pub fn answer(description: &str) -> ResponseBuilder {
    ResponseBuilder::new().description(description).header(X_CONTENT_TYPE_OPTIONS.as_str(), fixed("nosniff"))
}

/// Adds the responses of these codes: one for each status among them.
pub fn problems(mut operation: OperationBuilder, codes: &[Code]) -> OperationBuilder {
    let shared = shared();
    for (status, codes) in by_status(codes) {
        operation = if shared.contains(&codes) {
            operation.response(status, Ref::from_response_name(name(&codes)))
        } else {
            operation.response(status, problem(&codes))
        };
    }
    operation
}

/// Adds to the responses of these codes, which single items have, the results of a batch: a batch of which no item is good
/// has the status of one of them, with the results instead of a problem document. Responses that routes share stay.
pub fn or_results(operation: OperationBuilder, codes: &[Code], results: &Content) -> OperationBuilder {
    let mut operation = operation.build();
    for code in codes {
        let response = operation.responses.responses.get_mut(status_of(*code).as_str());
        if let Some(RefOr::T(response)) = response {
            response.content.insert("application/json".into(), results.clone().into());
            // Only problem documents always have it.
            response.headers.insert(CACHE_CONTROL.as_str().into(), maybe_header("", words(["no-store"])).into());
        }
    }
    operation.into()
}

/// The responses that many routes have, each the codes of one status.
pub(super) fn shared() -> Vec<Vec<Code>> {
    let mut shared: Vec<_> = by_status(EVERY_REQUEST).into_values().collect();
    shared.extend([Code::NotFound, Code::MethodNotAllowed, Code::NotAcceptable].map(|code| vec![code]));
    shared
}

/// The name of a shared response.
pub(crate) fn name(codes: &[Code]) -> String {
    codes.iter().map(|code| code.as_str()).collect::<Vec<_>>().join(".")
}

fn by_status(codes: &[Code]) -> BTreeMap<String, Vec<Code>> {
    let mut by_status: BTreeMap<String, Vec<Code>> = BTreeMap::new();
    for &code in codes {
        let same = by_status.entry(status_of(code).as_str().to_owned()).or_default();
        if !same.contains(&code) {
            same.push(code);
        }
    }
    by_status
}

/// The problem document of these codes, which have one status.
pub(crate) fn problem(codes: &[Code]) -> ResponseBuilder {
    let code = words(codes.iter().map(|code| code.as_str()));
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name(Document::name()))
        .item(ObjectBuilder::new().property("code", code));
    let examples = codes.iter().map(|&code| (code.as_str(), ExampleBuilder::new().value(Some(example(code)))));
    let content = ContentBuilder::new().schema(Some(schema)).examples_from_iter(examples).build();
    let listed: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
    let mut response = answer(&listed.join(", "))
        .header(REQUEST_ID.as_str(), header("The request id, as in the document.", text()))
        .header(CACHE_CONTROL.as_str(), fixed("no-store"))
        .content(MEDIA_TYPE, content);
    let status = codes.first().map(|&code| status_of(code));
    if matches!(status, Some(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)) {
        response = response.header(RETRY_AFTER.as_str(), header("When to try again, in seconds.", number()));
    }
    if codes.contains(&Code::RateLimited) {
        for (name, about) in RATE_LIMIT_HEADERS {
            response = response.header(name.as_str(), maybe_header(about, text()));
        }
    }
    if status == Some(StatusCode::UNSUPPORTED_MEDIA_TYPE) {
        let listed = |what| maybe_header(what, text());
        response = response
            .header(ACCEPT_POST.as_str(), listed("The media types that the route takes."))
            .header(ACCEPT_ENCODING.as_str(), listed("The content codings that the route takes."));
    }
    response
}

/// An operation that serves an [`Asset`](crate::http::Asset).
pub fn asset_operation(id: &str, group: &str, summary: &str, policy: &str) -> OperationBuilder {
    operation(id, group, summary)
        .parameter(request_header(&IF_NONE_MATCH, "Entity tags of cached responses.", text()))
        .response("304", asset_response("The cached response is current.", policy))
}

/// A response of an [`Asset`](crate::http::Asset) with this content security policy.
pub fn asset_response(description: &str, policy: &str) -> ResponseBuilder {
    answer(description)
        .header(CACHE_CONTROL.as_str(), fixed(REVALIDATE))
        .header(VARY.as_str(), fixed("Accept-Encoding"))
        .header(ETAG.as_str(), header("Strong.", text()))
        .header(CONTENT_SECURITY_POLICY.as_str(), fixed(policy))
        .header(REFERRER_POLICY.as_str(), fixed("no-referrer"))
}

/// An operation that redirects to the other side, where a browser finds what it looks for.
pub fn to_other_side(id: &str, group: &str, summary: &str, setting: &str) -> OperationBuilder {
    let found = ResponseBuilder::new()
        .description("It is there.")
        .header(LOCATION.as_str(), header("The URL.", text()))
        .header(CACHE_CONTROL.as_str(), fixed("no-store"));
    let about = format!("`not-found` if `{setting}` does not have the URL of the other side.");
    let operation = operation(id, group, summary).description(Some(about)).response("307", found);
    problems(operation, &[EVERY_REQUEST, &[Code::NotFound]].concat())
}

/// A body with this schema.
pub fn some(schema: impl Into<RefOr<Schema>>) -> Content {
    Content::new(Some(schema))
}

/// An optional header of a response.
pub fn maybe_header(description: &str, schema: impl Into<RefOr<Schema>>) -> Header {
    let description = Some(description).filter(|description| !description.is_empty());
    HeaderBuilder::new().description(description).schema(Some(schema)).build()
}

/// A header that every response has.
pub fn header(description: &str, schema: impl Into<RefOr<Schema>>) -> Header {
    let mut header = maybe_header(description, schema);
    // A field of the specification that the library has no name for.
    header.extensions = Some(Extensions::from_iter([("required", true)]));
    header
}

/// A header that every response has, with this value.
pub fn fixed(value: &str) -> Header {
    header("", words([value]))
}

/// A parameter of the query string.
pub fn query(name: &str, required: Required, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    parameter(ParameterIn::Query, name, description).required(required).schema(Some(schema)).build()
}

/// A parameter in the path.
pub fn part(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    parameter(ParameterIn::Path, name, description).required(Required::True).schema(Some(schema)).build()
}

/// An optional header of a request.
pub fn request_header(name: &HeaderName, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    parameter(ParameterIn::Header, name.as_str(), description).required(Required::False).schema(Some(schema)).build()
}

fn parameter(location: ParameterIn, name: &str, description: &str) -> ParameterBuilder {
    ParameterBuilder::new().name(name).parameter_in(location).description(Some(description))
}

/// Any text.
pub fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
}

/// The value of an `Idempotency-Key` with 1 to `max` characters: a string in double quotes, or a bare word.
pub fn idempotency_key_text(max: usize) -> ObjectBuilder {
    let bare = r"[!#-+\--:<-\[\]-~]";
    let quoted = r#""([ !#-\[\]-~]|\\["\\])"#;
    text().pattern(Some(format!(r#"^({bare}{{1,{max}}}|{quoted}{{1,{max}}}")$"#)))
}

/// One of these words.
pub fn words<'a>(words: impl IntoIterator<Item = &'a str>) -> ObjectBuilder {
    text().enum_values(Some(words))
}

/// Any number.
pub fn fraction() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Number)
}

/// An integer from 0 on.
pub fn number() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0_usize))
}

/// A boolean.
pub fn flag() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Boolean)
}

/// An object with required and optional members.
pub fn object(always: &[(&str, RefOr<Schema>)], maybe: &[(&str, RefOr<Schema>)]) -> ObjectBuilder {
    let with = |object: ObjectBuilder, (name, schema): &(&str, RefOr<Schema>)| object.property(*name, schema.clone());
    let object = always.iter().chain(maybe).fold(ObjectBuilder::new().schema_type(Type::Object), with);
    always.iter().fold(object, |object, (name, _)| object.required(*name))
}
