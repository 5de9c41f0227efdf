//! What the OpenAPI document says of the read side: the counts here, the `page` and the `registry` in files of their own.

pub(crate) mod page;
pub(crate) mod registry;

use axum::http::header::{AGE, CACHE_CONTROL, ETAG, IF_NONE_MATCH, VARY};
use millrace_contracts::{Code, Exactness, Hour};
use millrace_service::openapi::{
    EVERY_REQUEST, answer, document, fixed, flag, fraction, get, header, maybe_header, number, object, operation,
    problems, query, request_header, some, text, words,
};
use utoipa::openapi::content::Content;
use utoipa::openapi::path::{Parameter, PathItem};
use utoipa::openapi::schema::{ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{KnownFormat, OpenApi, Ref, RefOr, Required, ResponseBuilder, Schema, SchemaFormat};

use crate::Tier;
use crate::accept::Format;
use crate::live::{BUFFERING, LAST_EVENT_ID};
use crate::page::{AS_OF, EXACTNESS, Keep, RELATIVE_ERROR, STALE, TIER, USERS_ERROR};
use crate::rows::{Form, USERS};

const COUNTS: &str = "Counts";

/// What a query string may be refused with.
const PARAMETERS: &[Code] =
    &[Code::MissingField, Code::DuplicateField, Code::UnknownField, Code::InvalidField, Code::InvalidEncoding];

/// What a read of an hour may be refused with.
const READ: &[Code] = &[Code::NotAcceptable, Code::Rebuilding];

type Member = (&'static str, RefOr<Schema>);

pub(crate) fn about() -> OpenApi {
    let about = "Tells unique users, clicks and impressions of each UTC hour, and how fresh they are. Below `/registry` are \
                 the schemas of the log, where errors are those of a schema registry.";
    let mut document = document("Millrace, read side", about);
    let components = document.components.get_or_insert_default();
    let (hour, as_of) = (when("hour", r"^\d{4,}-\d\d-\d\dT\d\dZ$"), [("as_of", moment().into())]);
    for (name, schema) in [
        ("Hour", object(&[&counts()[..], &as_of, &fresh()].concat(), &unexact())),
        ("HourRow", object(&[&hour[..], &counts(), &fresh()].concat(), &unexact())),
        ("LiveHour", object(&[&hour[..], &counts(), &as_of, &fresh()].concat(), &unexact())),
        ("DayRow", object(&[&when("day", r"^\d{4,}-\d\d-\d\d$")[..], &sums()].concat(), &[])),
        ("Totals", object(&[&sums()[..], &[("unique_users_why", text().into())]].concat(), &[])),
    ] {
        components.schemas.insert(name.into(), schema.into());
    }
    page::schemas(components);
    registry::schemas(components);
    document
}

/// `GET /analytics`
pub(crate) fn hour() -> PathItem {
    let said = operation("hour", COUNTS, "The counts of the hour that holds the timestamp.")
        .parameter(timestamp("timestamp", "Of the hour.", Hour::MAX.end_ms() - 1))
        .parameter(request_header(&IF_NONE_MATCH, "Tags of what the client has.", text()))
        .response("200", hour_bodies(hour_headers(answer("The counts."))))
        .response("304", hour_headers(answer("The numbers are those that the client has.")));
    get(problems(said, &[EVERY_REQUEST, PARAMETERS, READ].concat()))
}

/// `GET /analytics/range`
pub(crate) fn range(most: u32) -> PathItem {
    let about = format!(
        "From the hour that holds `from` up to, but without, the one that begins at `to` or later; at most {most} hours. \
         A store that goes away in the middle cuts the connection."
    );
    let rows = |name: &str| RefOr::from(Schema::from(ArrayBuilder::new().items(Ref::from_schema_name(name)).build()));
    let body = |step: &str, row: &str| {
        let totals = Ref::from_schema_name("Totals").into();
        let (from, to) = (number().into(), number().into());
        object(
            &[("from", from), ("to", to), ("step", words([step]).into()), ("rows", rows(row)), ("totals", totals)],
            &[],
        )
    };
    let [json, csv, ndjson] = Form::ALL.map(|form| media(form.content_type()));
    let lines = "A row a line, as in the JSON; last a line with `totals`.";
    let found = answer("The rows. Users of several hours do not add up.")
        .header(AS_OF.as_str(), header("When the first piece was read.", moment()))
        .header(USERS.as_str(), header("What days and totals lack.", text()))
        .header(CACHE_CONTROL.as_str(), header("That of the latest hour.", keep()))
        .header(VARY.as_str(), header("", text()))
        .content(json, some(OneOfBuilder::new().item(body("hour", "HourRow")).item(body("day", "DayRow"))))
        .content(csv, some(text().description(Some("A header line, a row for each hour or day."))))
        .content(ndjson, some(text().description(Some(lines))));
    let end = Hour::MAX.end_ms();
    let said = operation("range", COUNTS, "The counts of many hours.")
        .description(Some(about))
        .parameter(timestamp("from", "In the first hour.", end))
        .parameter(timestamp("to", "After the last hour, or in it.", end))
        .parameter(query("step", Required::False, "What a row is; an hour unless given.", words(["hour", "day"])))
        .response("200", found);
    get(problems(said, &[EVERY_REQUEST, PARAMETERS, READ, &[Code::OutsideWindow]].concat()))
}

/// `GET /analytics/live`
pub(crate) fn live() -> PathItem {
    let about = "The data of an event `hour` is a `LiveHour`, and its `id` resumes the stream. That of an event \
                 `unavailable` is an object with a `code`. The newest is sent again as a sign of life. The stream does not end by itself.";
    let events = answer("The events.")
        .header(CACHE_CONTROL.as_str(), fixed("no-store"))
        .header(BUFFERING.as_str(), fixed("no"))
        .content("text/event-stream", Content::default());
    let said = operation("live", COUNTS, "The current hour as server-sent events, as it changes.")
        .description(Some(about))
        .parameter(request_header(&LAST_EVENT_ID, "The last event that the client has seen.", text()))
        .response("200", events);
    get(problems(said, &[EVERY_REQUEST, &[Code::NotAcceptable]].concat()))
}

fn timestamp(name: &str, about: &str, most: i64) -> Parameter {
    let about = format!("{about} Milliseconds since the epoch.");
    query(name, Required::True, &about, number().maximum(Some(isize::try_from(most).unwrap_or(isize::MAX))))
}

fn hour_bodies(response: ResponseBuilder) -> ResponseBuilder {
    let [lines, json, csv] = Format::ALL.map(|format| media(format.content_type()));
    response
        .content(lines, some(text().pattern(Some(r"^unique_users,\d+\nclicks,\d+\nimpressions,\d+\n$"))))
        .content(json, some(Ref::from_schema_name("Hour")))
        .content(csv, some(text().pattern(Some(r"^unique_users,clicks,impressions\n\d+,\d+,\d+\n$"))))
}

fn hour_headers(response: ResponseBuilder) -> ResponseBuilder {
    response
        .header(AS_OF.as_str(), header("When the numbers began to be read from their store.", moment()))
        .header(EXACTNESS.as_str(), header("Whether `unique_users` is; the others always are.", exactness()))
        .header(
            USERS_ERROR.as_str(),
            maybe_header("Of approximate users: the relative standard error.", words([RELATIVE_ERROR])),
        )
        .header(TIER.as_str(), header("Who answered.", tiers()))
        .header(STALE.as_str(), maybe_header("The numbers may lag behind.", words(["true"])))
        .header(AGE.as_str(), maybe_header("Of stale numbers, in seconds.", number()))
        .header(ETAG.as_str(), header("Strong. It begins with the numbers.", text()))
        .header(CACHE_CONTROL.as_str(), header("A minute for a past hour, else a second.", keep()))
        .header(VARY.as_str(), fixed("Accept"))
}

fn counts() -> [Member; 3] {
    ["unique_users", "clicks", "impressions"].map(|name| (name, number().into()))
}

fn fresh() -> [Member; 3] {
    [("exactness", exactness().into()), ("tier", tiers().into()), ("stale", flag().into())]
}

fn unexact() -> [Member; 1] {
    [("unique_users_error", fraction().into())]
}

/// The first members of a row.
fn when(name: &'static str, pattern: &str) -> [Member; 2] {
    [(name, text().pattern(Some(pattern)).into()), ("timestamp", number().into())]
}

/// The members of several hours together.
fn sums() -> [Member; 5] {
    let nobody = ObjectBuilder::new().schema_type(Type::Null);
    let number = || number().into();
    [
        ("hours", number()),
        ("unique_users", nobody.into()),
        ("clicks", number()),
        ("impressions", number()),
        ("stale", flag().into()),
    ]
}

fn moment() -> ObjectBuilder {
    text().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
}

fn exactness() -> ObjectBuilder {
    words([Exactness::Exact, Exactness::Approximate].map(Exactness::as_str))
}

fn tiers() -> ObjectBuilder {
    words([Tier::Memory, Tier::Redis, Tier::Archive].map(Tier::as_str))
}

fn keep() -> ObjectBuilder {
    let values = [Keep::Minute, Keep::Moment].map(Keep::cache_control);
    words(values.iter().map(|value| value.to_str().unwrap_or_default()))
}

/// The media type of a content type: what a client asks for.
fn media(content_type: &'static str) -> &'static str {
    content_type.split(';').next().unwrap_or(content_type)
}
