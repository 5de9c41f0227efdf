//! `POST /analytics/batch`: many events in one of the formats of [`Format`], with a result for each, in order.
//!
//! An invalid item does not affect the others. A body that is not a batch (a broken array, too many items) is refused as a
//! whole, before anything is appended.

use std::borrow::Cow;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use millrace_contracts::{Code, Refusal};
use millrace_service::Problem;
use millrace_service::auth::Identity;
use millrace_service::http::{batch_response, read_text};

use super::event::Window;
use super::event_id;
use super::format::Format;
use super::items::Items;
use crate::app::{App, POSITION};
use crate::intake::{Appended, Terms};

pub(crate) async fn post(State(app): State<Arc<App>>, request: Request) -> Response {
    let terms = Terms::of(&app.config, request.headers());
    match accept(&app, request, terms).await {
        Ok(results) => {
            for result in &results {
                app.metrics.count(result.as_ref().map_or_else(|refusal| refusal.code, |_| Code::Accepted));
            }
            let position = |at: &Option<_>| at.map(|at| app.position(at));
            let mut response = batch_response(&results, terms.status(), position);
            let reported = results.iter().filter_map(|result| result.as_ref().ok().copied().flatten());
            if let Some(Ok(positions)) = app.positions(reported).map(HeaderValue::try_from) {
                response.headers_mut().insert(POSITION, positions);
            }
            terms.add_header(response.headers_mut());
            response
        }
        Err(refusal) => {
            app.metrics.count(refusal.code);
            let mut response = Problem::from(refusal).into_response();
            Format::TYPES.describe(&mut response);
            response
        }
    }
}

async fn accept(app: &App, request: Request, terms: Terms) -> Result<Vec<Appended>, Refusal> {
    let (format, charset) = Format::of(request.headers())?;
    let attributes = format.attributes(request.headers())?;
    let key = event_id::of_batch(request.headers())?.map(Cow::into_owned);
    let identity = Identity::of(request.extensions());
    let body = read_text(request, charset, &app.config.limits, &app.bodies).await?;
    let window = Window::new(&app.config, app.clock.now_ms());
    let mut items = Items::new(window, key.as_deref(), app.appender.partitions(), app.config.max_batch_items);
    format.read(attributes.as_ref(), &body, &mut items)?;
    identity.charge(items.len().saturating_sub(1) as u64, 0);
    let (encoded, checked) = items.finish();
    let mut appended = app.appender.all(&encoded, terms.durability).await.into_iter();
    let unknown = || Err(Refusal::new(Code::OutcomeUnknown, "the event may or may not have been stored"));
    Ok(checked.into_iter().map(|good| good.and_then(|()| appended.next().unwrap_or_else(unknown))).collect())
}
