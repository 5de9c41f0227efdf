//! `GET /pixel.gif?user=..`: an impression from a web page. Other parameters, which pages add, are ignored.

use std::borrow::Cow;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method};
use millrace_contracts::{Code, Kind};
use millrace_service::Problem;

use super::event::Window;
use super::event_fields::EventFields;
use super::event_id;
use crate::app::App;
use crate::intake::{Appended, Terms};

/// One transparent pixel.
const GIF: &[u8; 43] =
    b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\xff\xff\xff!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;";

pub(crate) async fn get(State(app): State<Arc<App>>, request: Request) -> Response {
    // The framework routes HEAD to GET, but a HEAD displays nothing.
    if request.method() != Method::GET {
        let mut refusal = Problem::new(Code::MethodNotAllowed, "the route supports GET only").into_response();
        refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return refusal;
    }
    let (head, _body) = request.into_parts();
    let terms = Terms::of(&app.config, &head.headers);
    match accept(&app, &head, terms).await {
        Ok(position) => {
            app.metrics.count(Code::Accepted);
            let mut response = Response::new(Body::from(Bytes::from_static(GIF)));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("image/gif"));
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            app.add_headers(position, terms, headers);
            response
        }
        Err(refusal) => {
            app.metrics.count(refusal.code);
            Problem::from(refusal).into_response()
        }
    }
}

async fn accept(app: &App, head: &Parts, terms: Terms) -> Appended {
    let window = Window::new(&app.config, app.clock.now_ms());
    let mut fields = EventFields::parse_lenient(head.uri.query().unwrap_or_default())?;
    fields.timestamp.get_or_insert_with(|| Cow::Owned(window.now.to_string()));
    fields.flag = Some(Kind::Impression);
    let key = event_id::of_header(&head.headers)?;
    app.appender.one(&window.single(&fields, key.as_deref())?, terms.durability).await
}
