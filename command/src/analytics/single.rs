//! `POST /analytics?timestamp=..&user=..&click|impression`: one event. 204 when it is durable, 202 for a
//! weaker durability.
//!
//! Its fields may be in a body instead, or some of them. Most requests have none; what a body costs is theirs alone.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::request::Parts;
use millrace_contracts::{Code, Refusal};
use millrace_service::Problem;
use millrace_service::http::{Charset, MediaTypes, json_text, read_text};

use super::cloud_event::{self, Attributes};
use super::event::Window;
use super::event_fields::EventFields;
use super::{event_id, json};
use crate::app::App;
use crate::intake::{Appended, Terms};

/// The format of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// A JSON object.
    Json,
    /// As the query string.
    Form,
    /// A CloudEvent.
    CloudEvent,
}

const TYPES: MediaTypes<Format> = MediaTypes::new(&[
    ("application/json", Format::Json),
    ("application/x-www-form-urlencoded", Format::Form),
    ("application/cloudevents+json", Format::CloudEvent),
]);

impl Format {
    /// That of a request, and the charset of its text.
    fn of(headers: &HeaderMap) -> Result<(Self, Charset), Refusal> {
        match TYPES.of(headers)? {
            // What is percent-encoded is UTF-8 (URL Standard, 5.1), so the rest must be, too.
            (Self::Form, charset) if charset != Charset::UTF_8 => {
                let detail = format!("a form is UTF-8, not {}", charset.name());
                Err(Refusal::new(Code::UnsupportedMediaType, detail).field("content-type"))
            }
            known => Ok(known),
        }
    }

    /// The attributes of a CloudEvent in binary mode, of which the body is the data.
    fn attributes(self, headers: &HeaderMap) -> Result<Option<Attributes<'static>>, Refusal> {
        match self {
            Self::CloudEvent => Ok(None),
            Self::Json | Self::Form => Attributes::of_headers(headers, self == Self::Json),
        }
    }

    fn parse<'a>(
        self,
        attributes: Option<&Attributes<'_>>,
        body: &'a [u8],
        now: i64,
    ) -> Result<EventFields<'a>, Refusal> {
        if let Some(attributes) = attributes {
            return attributes.fields(json_text(body)?, now);
        }
        match self {
            Self::Json => json::fields(json_text(body)?),
            Self::Form => {
                let text = std::str::from_utf8(body);
                EventFields::parse(text.map_err(|_| Refusal::new(Code::InvalidEncoding, "not valid UTF-8"))?)
            }
            Self::CloudEvent => cloud_event::structured(json_text(body)?, now),
        }
    }
}

pub(crate) async fn post(State(app): State<Arc<App>>, request: Request) -> Response {
    let terms = Terms::of(&app.config, request.headers());
    let accepted = if request.body().is_end_stream() {
        accept(&app, &request.into_parts().0, terms).await
    } else {
        // Boxed, or every request would allocate for the state of those with a body.
        Box::pin(accept_with_body(&app, request, terms)).await
    };
    match accepted {
        Ok(position) => {
            app.metrics.count(Code::Accepted);
            let mut response = Response::new(Body::empty());
            *response.status_mut() = terms.status();
            app.add_headers(position, terms, response.headers_mut());
            response
        }
        Err(refusal) => {
            app.metrics.count(refusal.code);
            let mut response = Problem::from(refusal).into_response();
            TYPES.describe(&mut response);
            response
        }
    }
}

async fn accept(app: &App, head: &Parts, terms: Terms) -> Appended {
    let fields = EventFields::parse(head.uri.query().unwrap_or_default())?;
    let key = event_id::of_header(&head.headers)?;
    let event = Window::new(&app.config, app.clock.now_ms()).single(&fields, key.as_deref())?;
    app.appender.one(&event, terms.durability).await
}

async fn accept_with_body(app: &App, request: Request, terms: Terms) -> Appended {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let key = event_id::of_header(request.headers())?.map(Cow::into_owned);
    let given = Format::of(request.headers()).and_then(|(format, charset)| {
        let attributes = format.attributes(request.headers())?;
        Ok((format, charset, attributes))
    });
    let charset = given.as_ref().map_or(Charset::UTF_8, |(_, charset, _)| *charset);
    let body = read_text(request, charset, &app.config.limits, &app.bodies).await?;
    let window = Window::new(&app.config, app.clock.now_ms());
    let mut fields = EventFields::parse(&query)?;
    // A body that turns out to be empty is none, and has no format.
    if !body.is_empty() {
        let (format, _, attributes) = given?;
        fields = fields.and_body(format.parse(attributes.as_ref(), &body, window.now)?)?;
        fields.timestamp.get_or_insert_with(|| Cow::Owned(window.now.to_string()));
    }
    app.appender.one(&window.single(&fields, key.as_deref())?, terms.durability).await
}
