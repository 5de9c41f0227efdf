//! `POST /analytics?timestamp=..&user=..&click|impression`: one event. 204 when it is durable, 202 for a
//! weaker durability.
//!
//! Its fields may be in a body instead, or some of them. Most requests have none; what a body costs is theirs alone.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::{Body, HttpBody as _};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use millrace_contracts::{Code, Refusal};
use millrace_service::Problem;
use millrace_service::http::{MediaTypes, json_text, read_body};

use super::event::Window;
use super::parameters::Parameters;
use super::{event_id, item};
use crate::app::App;
use crate::intake::{Appended, Terms};

/// The format of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    /// A JSON object.
    Json,
    /// As the query string.
    Form,
}

const TYPES: MediaTypes<Format> =
    MediaTypes::new(&[("application/json", Format::Json), ("application/x-www-form-urlencoded", Format::Form)]);

impl Format {
    fn parse(self, body: &[u8]) -> Result<Parameters<'_>, Refusal> {
        match self {
            Self::Json => item::parameters(json_text(body)?),
            Self::Form => {
                let text = std::str::from_utf8(body);
                Parameters::parse(text.map_err(|_| Refusal::new(Code::InvalidEncoding, "not valid UTF-8"))?)
            }
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
    let parameters = Parameters::parse(head.uri.query().unwrap_or_default())?;
    let key = event_id::of_header(&head.headers)?;
    let event = Window::new(&app.config, app.clock.now_ms()).event_of(&parameters, key.as_deref())?;
    app.appender.one(&event, terms.durability).await
}

async fn accept_with_body(app: &App, request: Request, terms: Terms) -> Appended {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let key = event_id::of_header(request.headers())?.map(Cow::into_owned);
    let format = TYPES.of(request.headers());
    let body = read_body(request, &app.config.limits, &app.bodies).await?;
    let window = Window::new(&app.config, app.clock.now_ms());
    let mut parameters = Parameters::parse(&query)?;
    // A body that turns out to be empty is none, and has no format.
    if !body.is_empty() {
        parameters = parameters.and_body(format?.parse(&body)?)?;
        parameters.timestamp.get_or_insert_with(|| Cow::Owned(window.now.to_string()));
    }
    app.appender.one(&window.event_of(&parameters, key.as_deref())?, terms.durability).await
}
