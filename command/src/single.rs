//! `POST /analytics?timestamp=..&user=..&click|impression`: one event, 204 when it is durable, 202 at a weaker level.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use millrace_contracts::Code;

use crate::append::{Placed, Position};
use crate::durability::Terms;
use crate::event::Window;
use crate::ids;
use crate::query::Parameters;
use crate::router::App;

pub(crate) const POSITION: HeaderName = HeaderName::from_static("millrace-position");

pub(crate) async fn post(State(app): State<Arc<App>>, request: Request) -> Response {
    let (head, _body) = request.into_parts();
    let terms = Terms::of(&app.config, &head.headers);
    match accept(&app, &head, terms).await {
        Ok(position) => {
            app.metrics.count(Code::Accepted);
            let mut response = Response::new(Body::empty());
            *response.status_mut() = terms.status();
            app.note(position, terms, response.headers_mut());
            response
        }
        Err(problem) => {
            app.metrics.count(problem.code);
            problem.into_response()
        }
    }
}

async fn accept(app: &App, head: &Parts, terms: Terms) -> Placed {
    let given = Parameters::parse(head.uri.query().unwrap_or_default())?;
    let key = ids::of_header(&head.headers)?;
    let event = Window::new(&app.config, (app.clock)()).event_of(&given, key.as_deref())?;
    app.appender.one(&event, terms.durability).await
}

impl App {
    /// Where a record stands, as clients and `millrace tail` write it.
    pub(crate) fn position(&self, at: Position) -> String {
        format!("{}/{}@{}", self.topic, at.partition, at.offset)
    }

    /// Says in the headers of an answer where the event stands, if that is known, and what the answer is worth.
    pub(crate) fn note(&self, at: Option<Position>, terms: Terms, headers: &mut HeaderMap) {
        if let Some(Ok(position)) = at.map(|at| HeaderValue::try_from(self.position(at))) {
            headers.insert(POSITION, position);
        }
        terms.note(headers);
    }
}
