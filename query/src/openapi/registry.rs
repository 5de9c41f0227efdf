//! The schema registry's read API.

use axum::http::header::VARY;
use millrace_service::openapi::{
    EVERY_REQUEST, answer, get, header, maybe_header, number, object, operation, part, problems, query, some, text,
    words,
};
use utoipa::openapi::path::{OperationBuilder, Parameter, PathItem};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder};
use utoipa::openapi::{Components, Ref, RefOr, Required, Schema};

use crate::registry::MEDIA_TYPE;

const REFUSAL: &str = "RegistryError";
const SCHEMA: &str = "RegisteredSchema";

/// A subject, where the names of topics have the prefix that they have by default.
const EXAMPLE: &str = "millrace.analytics.events-value";

pub(super) fn schemas(components: &mut Components) {
    let refusal = object(&[("error_code", number().into()), ("message", text().into())], &[]);
    let schema = text().description(Some("The schema as text."));
    let members = [("subject", text()), ("version", number()), ("id", number()), ("schema", schema)];
    components.schemas.insert(REFUSAL.into(), refusal.into());
    components.schemas.insert(SCHEMA.into(), object(&members.map(|(name, member)| (name, member.into())), &[]).into());
}

/// Every path, and what is said of it.
pub(crate) fn paths() -> Vec<(&'static str, PathItem)> {
    let subject = || part("subject", "A topic's name and `-value`.", text().min_length(Some(1)).examples([EXAMPLE]));
    let version = || {
        let newest = OneOfBuilder::new().item(words(["latest", "-1"]));
        let numbered = number().minimum(Some(1_usize)).maximum(Some(i32::MAX as usize));
        part("version", "A number, or the newest.", newest.item(numbered).examples(["latest"]))
    };
    let id = || part("id", "Of a schema.", number().examples([1]));
    let global = || {
        let about = "Whether the registry's own level stands in for the subject's, which has none.";
        query("defaultToGlobal", Required::False, about, words(["true", "false"]))
    };
    let one = |name, schema: ObjectBuilder| object(&[(name, schema.into())], &[]);
    let avro = || object(&[("type", text().into())], &[]);
    let level = || one("compatibilityLevel", text());
    let numbered = object(&[("subject", text().into()), ("version", number().into())], &[]);
    let registered = || Ref::from_schema_name(SCHEMA);
    vec![
        ("/registry", said("registry", "That it is there.", [], object(&[], &[]))),
        ("/registry/", said("registryRoot", "The same.", [], object(&[], &[]))),
        ("/registry/subjects", said("subjects", "Every subject.", [], list(text()))),
        ("/registry/subjects/{subject}/versions", said("versions", "Its versions.", [subject()], list(number()))),
        (
            "/registry/subjects/{subject}/versions/{version}",
            said("version", "One version.", [subject(), version()], registered()),
        ),
        (
            "/registry/subjects/{subject}/versions/{version}/schema",
            said("versionSchema", "The schema of one version.", [subject(), version()], avro()),
        ),
        ("/registry/schemas/types", said("types", "The types of schemas.", [], list(text()))),
        ("/registry/schemas/ids/{id}", said("schema", "A schema by its id.", [id()], one("schema", text()))),
        ("/registry/schemas/ids/{id}/schema", said("schemaItself", "It alone.", [id()], avro())),
        ("/registry/schemas/ids/{id}/versions", said("schemaVersions", "Where it is used.", [id()], list(numbered))),
        ("/registry/schemas/ids/{id}/subjects", said("schemaSubjects", "Who uses it.", [id()], list(text()))),
        ("/registry/config", said("config", "How compatible schemas are.", [], level())),
        (
            "/registry/config/{subject}",
            said("subjectConfig", "The same of a subject, which has none of its own.", [subject(), global()], level()),
        ),
        ("/registry/mode", said("mode", "That nothing can be written.", [], one("mode", text()))),
    ]
}

fn list(of: ObjectBuilder) -> ArrayBuilder {
    ArrayBuilder::new().items(of)
}

fn said<const N: usize>(id: &str, about: &str, parameters: [Parameter; N], body: impl Into<RefOr<Schema>>) -> PathItem {
    let vary = || maybe_header("Of answers that may be compressed.", text());
    let found = answer("").header(VARY.as_str(), vary()).content(MEDIA_TYPE, some(body));
    let mut said = operation(&format!("registry-{id}"), "Registry", about).response("200", found);
    said = problems(parameters.into_iter().fold(said, OperationBuilder::parameter), EVERY_REQUEST);
    if N > 0 {
        for (status, about) in [("404", "Nothing by this name."), ("422", "No version by this name.")] {
            let refused = answer(about)
                .header("x-request-id", header("The request.", text()))
                .content(MEDIA_TYPE, some(Ref::from_schema_name(REFUSAL)));
            said = said.response(status, refused);
        }
    }
    get(said)
}
