//! Compressed responses, within a bound of memory: an encoder lives as long as its client reads, and one for Brotli takes
//! five megabytes.

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING};
use axum::middleware::Next;
use axum::response::Response;
use http_body_util::BodyExt as _;
use millrace_service::net::MemoryBudget;

/// The memory of the largest encoder.
const ENCODER_BYTES: usize = 5 << 20;

/// Takes the memory of an encoder from the budget until the response has been read. Without memory the response is not
/// compressed.
pub(crate) async fn bounded(State(encoders): State<MemoryBudget>, mut request: Request, next: Next) -> Response {
    if !request.headers().contains_key(ACCEPT_ENCODING) {
        return next.run(request).await;
    }
    let permit = encoders.try_acquire(ENCODER_BYTES);
    if permit.is_none() {
        request.headers_mut().remove(ACCEPT_ENCODING);
    }
    let response = next.run(request).await;
    match permit {
        Some(permit) if response.headers().contains_key(CONTENT_ENCODING) => response.map(|body| {
            Body::new(body.map_frame(move |frame| {
                // Held until the body ends.
                let _ = &permit;
                frame
            }))
        }),
        _ => response,
    }
}
