//! `POST /analytics?timestamp=..&user=..&click|impression`: one event, 204 when it is durable.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode};
use millrace_contracts::Code;
use millrace_service::Problem;

use crate::append::{Position, append_one};
use crate::event::Window;
use crate::query::Parameters;
use crate::router::App;

pub(crate) const POSITION: HeaderName = HeaderName::from_static("millrace-position");

pub(crate) async fn post(State(app): State<Arc<App>>, request: Request) -> Response {
    match accept(&app, request.uri().query().unwrap_or_default()).await {
        Ok(position) => {
            app.metrics.count(Code::Accepted);
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            if let Some(position) = app.header_of(position) {
                response.headers_mut().insert(POSITION, position);
            }
            response
        }
        Err(problem) => {
            app.metrics.count(problem.code);
            problem.into_response()
        }
    }
}

async fn accept(app: &App, query: &str) -> Result<Position, Problem> {
    let given = Parameters::parse(query)?;
    let event = Window::new(&app.config, (app.clock)()).event_of(&given)?;
    append_one(&app.log, &event).await
}

impl App {
    /// Where a record stands, as clients and `millrace tail` write it.
    pub(crate) fn position(&self, at: Position) -> String {
        format!("{}/{}@{}", self.topic, at.partition, at.offset)
    }

    pub(crate) fn header_of(&self, at: Position) -> Option<HeaderValue> {
        HeaderValue::try_from(self.position(at)).ok()
    }
}
