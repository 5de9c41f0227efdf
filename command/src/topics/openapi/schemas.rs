//! The schemas of these resources.

use std::borrow::Cow;
use std::collections::BTreeMap;

use millrace_contracts::topics::Filter;
use millrace_service::openapi::{number, object, text, words};
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, KnownFormat, ObjectBuilder, OneOfBuilder, SchemaFormat, SchemaType, Type,
};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema as _, ToSchema};

use crate::topics::batch::ResultBody;
use crate::topics::fields::MAX_TIME_MS;
use crate::topics::path::MAX_PRINCIPAL;
use crate::topics::render::{GrantBody, PositionBody, RecentAttemptsBody, SettingsBody, SubscriptionBody, TopicBody};

const FILTER: &str = "Filter";

/// Adds all of them to the components.
pub(super) fn add(schemas: &mut BTreeMap<String, RefOr<Schema>>) {
    let mut put = |name: Cow<'static, str>, schema: RefOr<Schema>| schemas.insert(name.into_owned(), schema);
    put(TopicBody::name(), TopicBody::schema());
    put(SettingsBody::name(), SettingsBody::schema());
    put(GrantBody::name(), GrantBody::schema());
    put(SubscriptionBody::name(), SubscriptionBody::schema());
    put(PositionBody::name(), PositionBody::schema());
    put(RecentAttemptsBody::name(), RecentAttemptsBody::schema());
    put(ResultBody::name(), ResultBody::schema());
    put(FILTER.into(), filter().into());
}

/// A name of a topic or a subscription.
pub(in crate::topics) fn name(example: &str) -> ObjectBuilder {
    text()
        .max_length(Some(127))
        .pattern(Some(r#"^[^\s\u0000-\u001f\u007f-\u009f<>.?:;"*|\\/]{1,127}$"#))
        .examples([example])
}

/// A name, or nothing.
pub(super) fn name_or_empty(example: &str) -> ObjectBuilder {
    name(example).pattern(Some(r#"^[^\s\u0000-\u001f\u007f-\u009f<>.?:;"*|\\/]{0,127}$"#))
}

/// A principal's name.
pub(super) fn principal() -> ObjectBuilder {
    text()
        .max_length(Some(MAX_PRINCIPAL))
        .pattern(Some(format!(r"^[^\u0000-\u001f\u007f-\u009f]{{1,{MAX_PRINCIPAL}}}$")))
        .examples(["shop"])
}

/// A duration as text.
pub(super) fn duration(example: &str) -> ObjectBuilder {
    text()
        .description(Some("A duration in ms, s, m, h or d."))
        .pattern(Some("^[0-9]+(ms|s|m|h|d)( [0-9]+(ms|s|m))*$"))
        .examples([example])
}

/// A duration as text, or nothing.
pub(super) fn duration_or_empty(example: &str) -> ObjectBuilder {
    duration(example).pattern(Some("^([0-9]+(ms|s|m|h|d)( [0-9]+(ms|s|m))*)?$"))
}

/// A time: RFC 3339, or milliseconds since the epoch.
pub(super) fn time() -> OneOfBuilder {
    let written = text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    let counted = number().maximum(isize::try_from(MAX_TIME_MS).ok());
    OneOfBuilder::new().item(written.examples(["2026-11-29T12:00:00Z"])).item(counted)
}

/// What this schema allows, or null.
pub(super) fn or_null(schema: ObjectBuilder) -> ObjectBuilder {
    let object = schema.build();
    let schema_type = match object.schema_type.clone() {
        SchemaType::Type(one) => [one, Type::Null].into_iter().collect(),
        other => other,
    };
    ObjectBuilder::from(object).schema_type(schema_type)
}

/// Any JSON.
pub(super) fn anything() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::AnyValue)
}

/// Null and nothing else.
pub(super) fn null() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Null)
}

/// An object with these members and no other.
pub(super) fn closed(members: &[(&str, RefOr<Schema>)]) -> ObjectBuilder {
    object(members, &[]).additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

/// Where a subscription begins, or a seek goes.
pub(super) fn start() -> OneOfBuilder {
    OneOfBuilder::new()
        .item(words(["latest", "earliest"]))
        .item(closed(&[("at", time().into())]))
        .item(closed(&[("offset", number().maximum(Some(isize::MAX)).into())]))
}

/// A filter, or null.
pub(super) fn filter_or_null() -> OneOfBuilder {
    OneOfBuilder::new().item(Ref::from_schema_name(FILTER)).item(null())
}

fn filter() -> OneOfBuilder {
    let itself = || Ref::from_schema_name(FILTER);
    let texts = || {
        let value = AdditionalProperties::RefOr(text().min_length(Some(1)).into());
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .additional_properties(Some(value))
            .min_properties(Some(1))
            .max_properties(Some(Filter::MAX_LEAVES))
    };
    let list = || ArrayBuilder::new().items(itself()).min_items(Some(1)).max_items(Some(Filter::MAX_LEAVES));
    let about = format!(
        "A CloudEvents subscription dialect over attributes, with at most {} comparisons and {} bytes.",
        Filter::MAX_LEAVES,
        Filter::MAX_BYTES
    );
    OneOfBuilder::new()
        .description(Some(about))
        .item(closed(&[("exact", texts().into())]))
        .item(closed(&[("prefix", texts().into())]))
        .item(closed(&[("suffix", texts().into())]))
        .item(closed(&[("all", list().into())]))
        .item(closed(&[("any", list().into())]))
        .item(closed(&[("not", itself().into())]))
}
