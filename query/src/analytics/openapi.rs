//! `/analytics` in the OpenAPI document.

use axum::http::header::{AGE, CACHE_CONTROL, ETAG, IF_NONE_MATCH, VARY};
use millrace_contracts::{Code, Hour};
use millrace_service::openapi::{
    EVERY_REQUEST, answer, fixed, get, header, maybe_header, number, object, operation, problems, query,
    request_header, some, text, words,
};
use utoipa::ToSchema;
use utoipa::openapi::content::Content;
use utoipa::openapi::header::Header;
use utoipa::openapi::path::{OperationBuilder, Parameter, PathItem};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder};
use utoipa::openapi::{Components, KnownFormat, Ref, RefOr, Required, ResponseBuilder, Schema, SchemaFormat};

use super::body::{DayRow, HourBody, HourRow, LiveHourBody, Totals, USERS_ERROR, exactness, tier};
use super::format::Format;
use super::live::{BUFFERING, LAST_EVENT_ID};
use super::params::Step;
use super::render::{AS_OF, COUNTED_UP_TO, EXACTNESS, MaxAge, STALE, TIER, UNIQUE_USERS_ERROR, VARIES};
use super::requirement::{self, MIN_POSITION, STALE_OK};
use super::rows::{RangeFormat, USERS};

/// A date, or an hour, minute or second of one, in UTC.
const WRITTEN: &str = "^(19[7-9]|[2-9][0-9]{2})[0-9]-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])\
                       (T([01][0-9]|2[0-3])(:[0-5][0-9](:[0-5][0-9])?)?Z)?$";
const COUNTS: &str = "Counts";

/// The codes of a query string that does not parse.
const PARAMETERS: &[Code] =
    &[Code::MissingField, Code::DuplicateField, Code::UnknownField, Code::InvalidField, Code::InvalidEncoding];

/// The codes of a read that fails.
const READ: &[Code] = &[Code::NotAcceptable, Code::Rebuilding, Code::NotYetVisible];

/// Adds the schemas of bodies.
pub(crate) fn schemas(components: &mut Components) {
    add::<HourBody>(components);
    add::<LiveHourBody>(components);
    add::<HourRow>(components);
    add::<DayRow>(components);
    add::<Totals>(components);
}

/// Adds the schema of a type, and those that it refers to.
pub(crate) fn add<T: ToSchema>(components: &mut Components) {
    let mut parts = Vec::new();
    T::schemas(&mut parts);
    components.schemas.extend(parts);
    components.schemas.insert(T::name().into_owned(), T::schema());
}

/// `GET /analytics`
pub(crate) fn hour() -> PathItem {
    let operation = operation("hour", COUNTS, "The counts of the hour that contains the timestamp.");
    let operation = requirement(operation)
        .parameter(timestamp("timestamp", "Any time in the hour.", Hour::MAX.end_ms() - 1))
        .parameter(request_header(&IF_NONE_MATCH, "Entity tags of cached responses.", text()))
        .response("200", hour_bodies(hour_headers(answer("The counts."))))
        .response("304", hour_headers(answer("The cached counts are current.")));
    get(problems(operation, &[EVERY_REQUEST, PARAMETERS, READ].concat()))
}

/// `GET /analytics/range`
pub(crate) fn range(max_hours: u32) -> PathItem {
    let about = format!(
        "The hours from the one that contains `from` to the last one that begins before `to`; at most {max_hours}. When a \
         store fails after the response has begun, the connection is aborted."
    );
    let rows = |name: &str| RefOr::from(Schema::from(ArrayBuilder::new().items(Ref::from_schema_name(name)).build()));
    let body = |step: Step, row: &str| {
        let totals = Ref::from_schema_name(Totals::name()).into();
        let (from, to, step) = (number().into(), number().into(), words([step.as_str()]).into());
        object(&[("from", from), ("to", to), ("step", step), ("rows", rows(row)), ("totals", totals)], &[])
    };
    let [json, csv, ndjson] = RangeFormat::ALL.map(|format| media(format.content_type()));
    let lines = "One row per line, as in the JSON, and a last line with `totals`.";
    let (hours, days) = (body(Step::Hour, &HourRow::name()), body(Step::Day, &DayRow::name()));
    let found = answer("The rows. Unique users of several hours do not add up.")
        .header(AS_OF.as_str(), header("When the read of the first hours began.", date_time()))
        .header(USERS.as_str(), header("Why days and totals have no unique users.", text()))
        .header(CACHE_CONTROL.as_str(), header("That of the last hour.", max_age()))
        .header(VARY.as_str(), header("", text()))
        .header(COUNTED_UP_TO.as_str(), counted_up_to())
        .content(json, some(OneOfBuilder::new().item(hours).item(days)))
        .content(csv, some(text().description(Some("A header, and a row for each hour or day."))))
        .content(ndjson, some(text().description(Some(lines))));
    let end = Hour::MAX.end_ms();
    let operation = requirement(operation("range", COUNTS, "The counts of a range of hours."))
        .description(Some(about))
        .parameter(timestamp("from", "The start of the range, inclusive.", end))
        .parameter(timestamp("to", "The end of the range, exclusive.", end))
        .parameter(query(
            "step",
            Required::False,
            "What a row is. The default is hour.",
            words(Step::ALL.map(Step::as_str)),
        ))
        .response("200", found);
    get(problems(operation, &[EVERY_REQUEST, PARAMETERS, READ, &[Code::OutsideWindow]].concat()))
}

/// `GET /analytics/live`
pub(crate) fn live() -> PathItem {
    let about = "The data of an event `hour` is a `LiveHour`; its `id` resumes the stream. The data of an event \
                 `unavailable` is an object with a `code`. While nothing changes, the last event is repeated as a \
                 heartbeat. The stream ends only when the service shuts down.";
    let events = answer("The events.")
        .header(CACHE_CONTROL.as_str(), fixed("no-store"))
        .header(BUFFERING.as_str(), fixed("no"))
        .content("text/event-stream", Content::default());
    let operation = operation("live", COUNTS, "The current hour as server-sent events, whenever it changes.")
        .description(Some(about))
        .parameter(request_header(&LAST_EVENT_ID, "The id of the last event that the client received.", text()))
        .response("200", events);
    get(problems(operation, &[EVERY_REQUEST, &[Code::NotAcceptable]].concat()))
}

/// Adds the parameters that require events of the counts.
fn requirement(operation: OperationBuilder) -> OperationBuilder {
    let about = "Positions that the write side returned, separated by commas: the counts contain these events, else the status \
                 is 503 `not-yet-visible`.";
    operation
        .parameter(query(requirement::POSITION, Required::False, about, text()))
        .parameter(request_header(&MIN_POSITION, "More positions, as in `min-position`.", text()))
        .parameter(query(
            requirement::WAIT,
            Required::False,
            "The longest wait for these events: a duration up to `10s`. The default is `1s`.",
            text(),
        ))
        .parameter(query(
            requirement::STALE,
            Required::False,
            "Counts without these events, marked stale, instead of 503.",
            words([STALE_OK]),
        ))
}

fn counted_up_to() -> Header {
    maybe_header("The counts contain every event that the log received before this time.", date_time())
}

fn timestamp(name: &str, about: &str, max: i64) -> Parameter {
    let about = format!("{about} Milliseconds since the epoch, or ISO 8601, UTC by default.");
    let counted = number().maximum(Some(isize::try_from(max).unwrap_or(isize::MAX)));
    // Other forms are accepted, too; these are always times.
    let written = text().pattern(Some(WRITTEN)).examples(["2026-11-21T08Z"]);
    query(name, Required::True, &about, OneOfBuilder::new().item(counted).item(written))
}

fn hour_bodies(response: ResponseBuilder) -> ResponseBuilder {
    let [lines, json, csv] = Format::ALL.map(|format| media(format.content_type()));
    response
        .content(lines, some(text().pattern(Some(r"^unique_users,\d+\nclicks,\d+\nimpressions,\d+\n$"))))
        .content(json, some(Ref::from_schema_name(HourBody::name())))
        .content(csv, some(text().pattern(Some(r"^unique_users,clicks,impressions\n\d+,\d+,\d+\n$"))))
}

fn hour_headers(response: ResponseBuilder) -> ResponseBuilder {
    let about_exactness = "Whether `unique_users` is exact; clicks and impressions always are.";
    let about_stale = "The counts may lag: their read model is unavailable or behind the log.";
    let about_error = "The relative standard error of approximate unique users.";
    response
        .header(AS_OF.as_str(), header("When the read of the store began.", date_time()))
        .header(COUNTED_UP_TO.as_str(), counted_up_to())
        .header(EXACTNESS.as_str(), header(about_exactness, exactness()))
        .header(UNIQUE_USERS_ERROR.as_str(), maybe_header(about_error, words([USERS_ERROR.to_string().as_str()])))
        .header(TIER.as_str(), header("The read model that served the counts.", tier()))
        .header(STALE.as_str(), maybe_header(about_stale, words(["true"])))
        .header(AGE.as_str(), maybe_header("The age of stale counts, in seconds.", number()))
        .header(ETAG.as_str(), header("Strong. It begins with the counts.", text()))
        .header(CACHE_CONTROL.as_str(), header("A minute for a past hour, else a second.", max_age()))
        .header(VARY.as_str(), fixed(VARIES))
}

fn date_time() -> ObjectBuilder {
    text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

fn max_age() -> ObjectBuilder {
    let values = [MaxAge::Minute, MaxAge::Second].map(MaxAge::cache_control);
    words(values.iter().map(|value| value.to_str().unwrap_or_default()))
}

/// The media type of a content type, without its parameters.
pub(crate) fn media(content_type: &'static str) -> &'static str {
    content_type.split(';').next().unwrap_or(content_type)
}
