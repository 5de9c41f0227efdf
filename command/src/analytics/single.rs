//! `POST /analytics?timestamp=..&user=..&click|impression`: one event. 204 when it is durable, 202 for a
//! weaker durability.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use millrace_contracts::Code;
use millrace_service::Problem;

use super::event::Window;
use super::event_id;
use super::parameters::Parameters;
use crate::app::App;
use crate::intake::{Appended, Terms};

pub(crate) async fn post(State(app): State<Arc<App>>, request: Request) -> Response {
    let (head, _body) = request.into_parts();
    let terms = Terms::of(&app.config, &head.headers);
    match accept(&app, &head, terms).await {
        Ok(position) => {
            app.metrics.count(Code::Accepted);
            let mut response = Response::new(Body::empty());
            *response.status_mut() = terms.status();
            app.add_headers(position, terms, response.headers_mut());
            response
        }
        Err(refusal) => {
            app.metrics.count(refusal.code);
            Problem::from(refusal).into_response()
        }
    }
}

async fn accept(app: &App, head: &Parts, terms: Terms) -> Appended {
    let parameters = Parameters::parse(head.uri.query().unwrap_or_default())?;
    let key = event_id::of_header(&head.headers)?;
    let event = Window::new(&app.config, app.clock.now_ms()).event_of(&parameters, key.as_deref())?;
    app.appender.one(&event, terms.durability).await
}
