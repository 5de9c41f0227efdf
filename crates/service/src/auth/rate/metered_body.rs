//! A request body of unknown length, whose bytes count as they arrive.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use axum::extract::Request;
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::super::Identity;

struct MeteredBody {
    body: Body,
    identity: Arc<Identity>,
}

/// Counts the body of a request as it arrives, if it has not announced its length: that was counted at admission.
pub(in super::super) fn metered(request: Request, identity: &Arc<Identity>) -> Request {
    if request.body().size_hint().exact().is_some() {
        return request;
    }
    request.map(|body| Body::new(MeteredBody { body, identity: identity.clone() }))
}

impl HttpBody for MeteredBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.identity.charge(0, data.len() as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
