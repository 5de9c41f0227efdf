//! The body of a response that ends with its reader's credential.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// A body that breaks off when the credential is revoked or expires, so that nobody takes it for whole.
pub(super) struct EndingBody {
    body: Body,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl EndingBody {
    pub(super) fn new(body: Body, ended: &CancellationToken) -> Self {
        Self { body, ended: Box::pin(ended.clone().cancelled_owned()) }
    }
}

impl HttpBody for EndingBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new("the credential has ended"))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
