//! What operations of all these resources share.

use std::borrow::Cow;

use http::header::{CACHE_CONTROL, IF_MATCH};
use millrace_contracts::Code;
use millrace_service::openapi::{
    EVERY_REQUEST, answer, fixed, header, number, object, operation, part, problems, query, request_header, some, text,
};
use utoipa::openapi::content::{Content, ContentBuilder};
use utoipa::openapi::path::{OperationBuilder, Parameter};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder};
use utoipa::openapi::{Ref, Required, ResponseBuilder};

use super::schemas::{name, name_or_empty, or_null};
use crate::topics::topic::MAX_PAGE;

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
pub(super) const BODY: &[Code] =
    &[Code::MalformedBody, Code::MissingField, Code::TooLarge, Code::UnsupportedMediaType, Code::UnsupportedEncoding];

pub(super) fn on_topic(id: &str, group: &str, summary: &str) -> OperationBuilder {
    operation(id, group, summary).parameter(topic("orders"))
}

pub(super) fn on_subscription(id: &str, group: &str, summary: &str) -> OperationBuilder {
    on_topic(id, group, summary).parameter(subscription("worker"))
}

pub(super) fn topic(example: &str) -> Parameter {
    part("topic", "The topic's name.", name(example))
}

pub(super) fn subscription(example: &str) -> Parameter {
    part("subscription", "The subscription's name.", name(example))
}

pub(super) fn refusals(operation: OperationBuilder, more: &[Code]) -> OperationBuilder {
    problems(operation, &[EVERY_REQUEST, CALL, more].concat())
}

pub(super) fn with_body(operation: OperationBuilder, body: RequestBody, more: &[Code]) -> OperationBuilder {
    refusals(operation.request_body(Some(body)), &[BODY, more].concat())
}

pub(super) fn json_body(schema: ObjectBuilder, example: serde_json::Value, required: Required) -> RequestBody {
    body_of(&["application/json"], schema, example, required)
}

/// The body of a PATCH.
pub(super) fn merge_patch(schema: ObjectBuilder, example: serde_json::Value) -> RequestBody {
    body_of(&["application/merge-patch+json", "application/json"], schema, example, Required::False)
}

fn body_of(types: &[&str], schema: ObjectBuilder, example: serde_json::Value, required: Required) -> RequestBody {
    let schema = schema.additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let content = ContentBuilder::new().schema(Some(schema)).example(Some(example)).build();
    let body = RequestBodyBuilder::new().required(Some(required));
    types.iter().fold(body, |body, media_type| body.content(*media_type, content.clone())).build()
}

/// A response that no cache stores.
pub(super) fn fresh(description: &str) -> ResponseBuilder {
    answer(description).header(CACHE_CONTROL.as_str(), fixed("no-store"))
}

/// A response without a body.
pub(super) fn empty(description: &str) -> ResponseBuilder {
    ResponseBuilder::new().description(description).header(CACHE_CONTROL.as_str(), fixed("no-store"))
}

/// A response with an ETag.
pub(super) fn tagged(description: &str) -> ResponseBuilder {
    fresh(description).header("ETag", header("Changes with settings and grants.", text()))
}

pub(super) fn reference(name: &str) -> Content {
    some(Ref::from_schema_name(name))
}

pub(super) fn if_match() -> Parameter {
    request_header(&IF_MATCH, "The ETag that it must have; `*` for any.", text())
}

pub(super) fn deleted(operation: OperationBuilder) -> OperationBuilder {
    refusals(operation.parameter(if_match()).response("204", empty("Done.")), &[Code::PreconditionFailed])
}

/// Makes an operation a list.
pub(super) fn list(operation: OperationBuilder, member: &str, item: Cow<'static, str>) -> OperationBuilder {
    let items = ArrayBuilder::new().items(Ref::from_schema_name(item.into_owned()));
    let next = or_null(name("orders")).description(Some("`after` of the next page, if there is one."));
    let page = object(&[(member, items.into()), ("next", next.into())], &[]);
    let listed = operation
        .parameter(query("prefix", Required::False, "Only names that begin with this.", text()))
        .parameter(query(
            "limit",
            Required::False,
            "Most items of the page.",
            number().minimum(Some(1)).maximum(Some(MAX_PAGE)).examples([100]),
        ))
        .parameter(query("after", Required::False, "Only names after this one.", name_or_empty("a")))
        .response("200", fresh("A page.").content("application/json", some(page)));
    refusals(listed, &[])
}
