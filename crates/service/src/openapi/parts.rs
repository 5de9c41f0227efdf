//! The words that documents are made of.

use std::collections::BTreeMap;

use ::http::header::{CACHE_CONTROL, RETRY_AFTER, X_CONTENT_TYPE_OPTIONS};
use ::http::{HeaderName, StatusCode};
use millrace_contracts::Code;
use utoipa::ToSchema as _;
use utoipa::openapi::content::Content;
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::header::{Header, HeaderBuilder};
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{AllOfBuilder, ObjectBuilder, Type};
use utoipa::openapi::{HttpMethod, Ref, RefOr, Required, ResponseBuilder, Schema};

use crate::http::{Document, MEDIA_TYPE, REQUEST_ID};
use crate::status_of;

/// What the server itself may answer to any request, whatever its route.
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

/// GET, and HEAD, which is answered the same without the body.
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

/// An answer. Every one with a body tells browsers not to guess its type.
pub fn answer(description: &str) -> ResponseBuilder {
    ResponseBuilder::new().description(description).header(X_CONTENT_TYPE_OPTIONS.as_str(), fixed("nosniff"))
}

/// Adds the answers of these codes: one for each status among them.
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

/// The answers that many routes have, each the codes of one status.
pub(super) fn shared() -> Vec<Vec<Code>> {
    let mut shared: Vec<_> = by_status(EVERY_REQUEST).into_values().collect();
    shared.extend([Code::NotFound, Code::MethodNotAllowed, Code::NotAcceptable].map(|code| vec![code]));
    shared
}

/// What a shared answer is called.
pub(super) fn name(codes: &[Code]) -> String {
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
pub(super) fn problem(codes: &[Code]) -> ResponseBuilder {
    let code = words(codes.iter().map(|code| code.as_str()));
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name(Document::name()))
        .item(ObjectBuilder::new().property("code", code));
    let listed: Vec<String> = codes.iter().map(|code| format!("`{code}`")).collect();
    let mut response = answer(&listed.join(", "))
        .header(REQUEST_ID.as_str(), header("The request, as in the document.", text()))
        .header(CACHE_CONTROL.as_str(), fixed("no-store"))
        .content(MEDIA_TYPE, some(schema));
    let status = codes.first().map(|&code| status_of(code));
    if matches!(status, Some(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)) {
        response = response.header(RETRY_AFTER.as_str(), header("When to try again, in seconds.", number()));
    }
    response
}

/// A body of this shape.
pub fn some(schema: impl Into<RefOr<Schema>>) -> Content {
    Content::new(Some(schema))
}

/// A header that may be there.
pub fn maybe_header(description: &str, schema: impl Into<RefOr<Schema>>) -> Header {
    let description = Some(description).filter(|description| !description.is_empty());
    HeaderBuilder::new().description(description).schema(Some(schema)).build()
}

/// A header that is always there.
pub fn header(description: &str, schema: impl Into<RefOr<Schema>>) -> Header {
    let mut header = maybe_header(description, schema);
    // A field of the specification that the library has no name for.
    header.extensions = Some(Extensions::from_iter([("required", true)]));
    header
}

/// A header that is always there and always the same.
pub fn fixed(value: &str) -> Header {
    header("", words([value]))
}

/// A parameter of the query string.
pub fn query(name: &str, required: Required, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    parameter(ParameterIn::Query, name, description).required(required).schema(Some(schema)).build()
}

/// A part of the path.
pub fn part(name: &str, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    parameter(ParameterIn::Path, name, description).required(Required::True).schema(Some(schema)).build()
}

/// A header that a request may have.
pub fn request_header(name: &HeaderName, description: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    parameter(ParameterIn::Header, name.as_str(), description).required(Required::False).schema(Some(schema)).build()
}

fn parameter(place: ParameterIn, name: &str, description: &str) -> ParameterBuilder {
    ParameterBuilder::new().name(name).parameter_in(place).description(Some(description))
}

/// Any text.
pub fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String)
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

/// True or false.
pub fn flag() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Boolean)
}

/// An object with members that are always there, and others that may be.
pub fn object(always: &[(&str, RefOr<Schema>)], maybe: &[(&str, RefOr<Schema>)]) -> ObjectBuilder {
    let with = |object: ObjectBuilder, (name, schema): &(&str, RefOr<Schema>)| object.property(*name, schema.clone());
    let object = always.iter().chain(maybe).fold(ObjectBuilder::new().schema_type(Type::Object), with);
    always.iter().fold(object, |object, (name, _)| object.required(*name))
}
