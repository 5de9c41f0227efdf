//! `/registry` in the OpenAPI document.

use axum::http::header::VARY;
use millrace_service::openapi::{
    EVERY_REQUEST, answer, get, header, maybe_header, number, object, operation, part, problems, query, some, text,
    words,
};
use utoipa::openapi::path::{OperationBuilder, Parameter, PathItem};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder};
use utoipa::openapi::{Components, Ref, RefOr, Required, Schema};

use super::schemas::MEDIA_TYPE;

const ERROR: &str = "RegistryError";
const SCHEMA: &str = "RegisteredSchema";

/// A subject with the default prefix of topics.
const EXAMPLE: &str = "millrace.analytics.events-value";

pub(crate) fn schemas(components: &mut Components) {
    let error = object(&[("error_code", number().into()), ("message", text().into())], &[]);
    let schema = text().description(Some("The schema as a string."));
    let members = [("subject", text()), ("version", number()), ("id", number()), ("schema", schema)];
    components.schemas.insert(ERROR.into(), error.into());
    components.schemas.insert(SCHEMA.into(), object(&members.map(|(name, member)| (name, member.into())), &[]).into());
}

/// Every path with its operations.
pub(crate) fn paths() -> Vec<(&'static str, PathItem)> {
    let subject = || {
        part("subject", "The name of a topic with the suffix `-value`.", text().min_length(Some(1)).examples([EXAMPLE]))
    };
    let version = || {
        let newest = OneOfBuilder::new().item(words(["latest", "-1"]));
        let numbered = number().minimum(Some(1_usize)).maximum(Some(i32::MAX as usize));
        part("version", "A number, or `latest`.", newest.item(numbered).examples(["latest"]))
    };
    let id = || part("id", "The id of a schema.", number().examples([1]));
    let global = || {
        let about = "Whether to return the global level if the subject has none of its own, which is always the case.";
        query("defaultToGlobal", Required::False, about, words(["true", "false"]))
    };
    let one = |name, schema: ObjectBuilder| object(&[(name, schema.into())], &[]);
    let avro = || object(&[("type", text().into())], &[]);
    let level = || one("compatibilityLevel", text());
    let numbered = object(&[("subject", text().into()), ("version", number().into())], &[]);
    let registered = || Ref::from_schema_name(SCHEMA);
    vec![
        ("/registry", get_operation("registry", "The root of the registry.", [], object(&[], &[]))),
        ("/registry/", get_operation("registryRoot", "The root of the registry.", [], object(&[], &[]))),
        ("/registry/subjects", get_operation("subjects", "All subjects.", [], list(text()))),
        (
            "/registry/subjects/{subject}/versions",
            get_operation("versions", "The versions of a subject.", [subject()], list(number())),
        ),
        (
            "/registry/subjects/{subject}/versions/{version}",
            get_operation("version", "A version of a subject.", [subject(), version()], registered()),
        ),
        (
            "/registry/subjects/{subject}/versions/{version}/schema",
            get_operation("versionSchema", "The schema of a version.", [subject(), version()], avro()),
        ),
        ("/registry/schemas/types", get_operation("types", "The supported schema types.", [], list(text()))),
        ("/registry/schemas/ids/{id}", get_operation("schema", "A schema by its id.", [id()], one("schema", text()))),
        (
            "/registry/schemas/ids/{id}/schema",
            get_operation("schemaText", "A schema by its id, without the envelope.", [id()], avro()),
        ),
        (
            "/registry/schemas/ids/{id}/versions",
            get_operation("schemaVersions", "The versions that use a schema.", [id()], list(numbered)),
        ),
        (
            "/registry/schemas/ids/{id}/subjects",
            get_operation("schemaSubjects", "The subjects that use a schema.", [id()], list(text())),
        ),
        ("/registry/config", get_operation("config", "The global compatibility level.", [], level())),
        (
            "/registry/config/{subject}",
            get_operation("subjectConfig", "The compatibility level of a subject.", [subject(), global()], level()),
        ),
        ("/registry/mode", get_operation("mode", "The mode, which is read-only.", [], one("mode", text()))),
    ]
}

fn list(of: ObjectBuilder) -> ArrayBuilder {
    ArrayBuilder::new().items(of)
}

fn get_operation<const N: usize>(
    id: &str,
    about: &str,
    parameters: [Parameter; N],
    body: impl Into<RefOr<Schema>>,
) -> PathItem {
    let vary = || maybe_header("Present if the response may be compressed.", text());
    let found = answer("").header(VARY.as_str(), vary()).content(MEDIA_TYPE, some(body));
    let mut operation = operation(&format!("registry-{id}"), "Registry", about).response("200", found);
    operation = problems(parameters.into_iter().fold(operation, OperationBuilder::parameter), EVERY_REQUEST);
    if N > 0 {
        for (status, about) in [("404", "Not found."), ("422", "Not a valid version.")] {
            let refusal = answer(about)
                .header("x-request-id", header("The id of the request.", text()))
                .content(MEDIA_TYPE, some(Ref::from_schema_name(ERROR)));
            operation = operation.response(status, refusal);
        }
    }
    get(operation)
}
