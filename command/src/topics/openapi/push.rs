//! Push and dead letters.

use millrace_contracts::Code;
use millrace_contracts::topics::{AttemptError, Verdict};
use millrace_service::openapi::{flag, number, object, part, query, some, text, words};
use serde_json::json;
use utoipa::ToSchema as _;
use utoipa::openapi::path::OperationBuilder;
use utoipa::openapi::schema::{AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Type};
use utoipa::openapi::{HttpMethod, Required};

use super::Operation;
use super::parts::{fresh, json_body, on_subscription, reference, refusals, tagged, with_body};
use super::schemas::{anything, closed, duration, or_null, time};
use crate::topics::deliveries::{MAX_LETTERS, MAX_LISTED_ATTEMPTS, MAX_RATE};
use crate::topics::render::SubscriptionBody;

const PUSH: &str = "Push";
const ROTATE: &str = "/v1/topics/{topic}/subscriptions/{subscription}:rotate-secret";
const ATTEMPTS: &str = "/v1/topics/{topic}/subscriptions/{subscription}/attempts";
const LETTERS: &str = "/v1/topics/{topic}/subscriptions/{subscription}/dead-letters";
const REDRIVE: &str = "/v1/topics/{topic}/subscriptions/{subscription}/dead-letters:redrive";
const TEST: &str = "/v1/topics/{topic}/subscriptions/{subscription}:test";
const EXPLAIN: &str = "/v1/topics/{topic}/subscriptions/{subscription}:explain";
const PROGRESS: &str = "/v1/topics/{topic}/subscriptions/{subscription}/redrives/{redrive}";

pub(super) fn operations() -> Vec<Operation> {
    vec![
        (ROTATE, HttpMethod::Post, rotate()),
        (ATTEMPTS, HttpMethod::Get, attempts()),
        (LETTERS, HttpMethod::Get, letters()),
        (REDRIVE, HttpMethod::Post, redrive()),
        (PROGRESS, HttpMethod::Get, progress()),
        (TEST, HttpMethod::Post, test()),
        (EXPLAIN, HttpMethod::Get, explain()),
    ]
}

/// Settings of push, as a body has them.
pub(super) fn settings() -> ObjectBuilder {
    let schedule = OneOfBuilder::new()
        .item(words(["exponential", "webhook"]))
        .item(ArrayBuilder::new().items(duration("5s")).min_items(Some(1)).max_items(Some(64)));
    let status = number().minimum(Some(300)).maximum(Some(599));
    let values = AdditionalProperties::RefOr(or_null(text()).into());
    let headers = ObjectBuilder::new().schema_type(Type::Object).additional_properties(Some(values));
    let allowed = "Requests a second that the endpoint allowed when it agreed; ignored in a request.";
    let allowed_rate = ObjectBuilder::new().schema_type(Type::Number).description(Some(allowed)).read_only(true);
    let members = [
        ("url", text().examples(["https://example.com/hook"]).into()),
        ("timeout", or_null(duration("15s")).into()),
        ("schedule", schedule.into()),
        ("max_age", or_null(duration("72h")).into()),
        ("permanent_statuses", ArrayBuilder::new().items(status).max_items(Some(64)).into()),
        ("rate", or_null(number().minimum(Some(1)).maximum(Some(100_000))).into()),
        ("body", words(["raw", "cloudevents-binary", "cloudevents-structured", "envelope"]).into()),
        ("headers", headers.into()),
        ("signature", words(["v1", "v1a"]).into()),
        ("consent", flag().into()),
        ("allowed_rate", allowed_rate.into()),
    ];
    object(&[], &members).additional_properties(Some(AdditionalProperties::FreeForm(false)))
}

fn on(id: &str, summary: &str) -> OperationBuilder {
    on_subscription(id, PUSH, summary)
}

fn limit(most: usize) -> utoipa::openapi::path::Parameter {
    let number = number().minimum(Some(1)).maximum(isize::try_from(most).ok()).examples([100]);
    query("limit", Required::False, "Most items.", number)
}

fn rotate() -> OperationBuilder {
    let body = ObjectBuilder::new().property("overlap", duration("24h"));
    let rotated = on("rotateSecret", "Rotates the signing key; the current one signs too, for the overlap.");
    let rotated = with_body(rotated, json_body(body, json!({"overlap": "24h"}), Required::False), &[Code::WrongMode]);
    let content = reference(&SubscriptionBody::name());
    rotated.response("200", tagged("The subscription, with the new secret.").content("application/json", content))
}

fn attempts() -> OperationBuilder {
    let attempt = object(
        &[
            ("offset", number().into()),
            ("at", or_null(text()).into()),
            ("attempt", number().into()),
            ("status", or_null(number()).into()),
            ("latency_ms", number().into()),
            ("error", or_null(text()).into()),
            ("answer", or_null(text()).into()),
        ],
        &[],
    );
    let list = object(&[("attempts", ArrayBuilder::new().items(attempt).into())], &[]);
    let listed = on("listAttempts", "Lists the last delivery attempts, the newest first.")
        .parameter(limit(MAX_LISTED_ATTEMPTS))
        .response("200", fresh("The attempts.").content("application/json", some(list)));
    refusals(listed, &[Code::WrongMode])
}

fn letters() -> OperationBuilder {
    let letter = object(
        &[
            ("offset", number().into()),
            ("dead_lettered_at", or_null(text()).into()),
            ("reason", words(["max-age", "max-attempts", "permanent-status", "expired"]).into()),
            ("attempts", number().into()),
            ("first_attempt_at", or_null(text()).into()),
            ("last_attempt_at", or_null(text()).into()),
            ("last_status", or_null(number()).into()),
            ("last_error", or_null(text()).into()),
            ("message", anything().into()),
        ],
        &[],
    );
    let list =
        object(&[("dead_letters", ArrayBuilder::new().items(letter).into()), ("next", or_null(number()).into())], &[]);
    let listed = on("listDeadLetters", "Lists dead letters by offset.")
        .parameter(query("after", Required::False, "Only letters after this offset.", number()))
        .parameter(limit(MAX_LETTERS))
        .response("200", fresh("A page.").content("application/json", some(list)));
    refusals(listed, &[Code::Overloaded])
}

fn redrive() -> OperationBuilder {
    let body = ObjectBuilder::new()
        .property("from", time())
        .property("to", time())
        .property("status", number().minimum(Some(100)).maximum(Some(599)))
        .property("rate", number().minimum(Some(1)).maximum(isize::try_from(MAX_RATE).ok()));
    let answer = closed(&[("redrive", text().into()), ("selected", number().into())]);
    let redriven = on("redriveDeadLetters", "Redrives dead letters: retries them under the same ids.");
    let redriven = with_body(redriven, json_body(body, json!({"status": 503}), Required::False), &[Code::Overloaded]);
    redriven.response("202", fresh("They left the list.").content("application/json", some(answer)))
}

fn progress() -> OperationBuilder {
    let progress = object(
        &[
            ("redrive", text().into()),
            ("selected", number().into()),
            ("done", number().into()),
            ("failed", number().into()),
            ("state", words(["running", "done", "canceled"]).into()),
        ],
        &[],
    );
    let described = on("describeRedrive", "Describes the progress of a redrive, one of the last 20.")
        .parameter(part("redrive", "The redrive.", text().examples(["5f1c3a0b9d2e4786"])))
        .response("200", fresh("The progress.").content("application/json", some(progress)));
    refusals(described, &[])
}

fn test() -> OperationBuilder {
    let values = AdditionalProperties::RefOr(or_null(text()).into());
    let headers = ObjectBuilder::new().schema_type(Type::Object).additional_properties(Some(values));
    let request = object(&[("url", text().into()), ("headers", headers.into()), ("body", text().into())], &[]);
    let sample = object(
        &[
            ("request", request.into()),
            ("addresses", ArrayBuilder::new().items(text()).into()),
            ("status", or_null(number()).into()),
            ("latency_ms", number().into()),
            ("error", or_null(words(AttemptError::ALL.map(AttemptError::as_str))).into()),
            ("answer", or_null(text()).into()),
        ],
        &[],
    );
    let tested = on("testSubscription", "Sends a signed sample to the endpoint. Values of own headers are not shown.");
    let tested = with_body(
        tested,
        json_body(ObjectBuilder::new(), json!({}), Required::False),
        &[Code::WrongMode, Code::Overloaded],
    );
    tested.response("200", fresh("The request, and how it ended.").content("application/json", some(sample)))
}

fn explain() -> OperationBuilder {
    let explanation = object(
        &[
            ("offset", number().into()),
            ("verdict", words(Verdict::ALL.map(Verdict::as_str)).into()),
            ("attempts", or_null(number()).into()),
            ("next_attempt_at", or_null(text()).into()),
            ("last_error", or_null(text()).into()),
        ],
        &[],
    );
    let explained = on("explainMessage", "Explains what happened to a message, and why.")
        .parameter(query("offset", Required::True, "The message's offset.", number().examples([1])))
        .response("200", fresh("The verdict.").content("application/json", some(explanation)));
    refusals(explained, &[Code::MissingField])
}
