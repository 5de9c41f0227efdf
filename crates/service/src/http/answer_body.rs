//! The body of an answer on its way to the client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};

use super::guard::Guard;
use super::stream::{Delivery, Progress};

/// The longest piece that an HTTP/2 stream takes at once. Once its window is open at all, hyper takes a piece whole and
/// holds what does not fit.
const PIECE: usize = 16 << 10;
/// A piece beyond this size leaves its last byte to a piece of its own: hyper is done with a stream once it holds the last
/// piece, and nobody would notice that the client never takes it.
const UNWATCHED: usize = 1 << 10;

/// A request under way: until the body of its answer is handed over or dropped.
pub(super) struct Ticket(pub(super) Arc<Guard>);

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The body of an answer; its request is under way until it is dropped. In HTTP/2 in pieces, whose progress is watched.
pub(super) struct AnswerBody {
    body: Body,
    /// What is left of the frame under way.
    rest: Bytes,
    progress: Option<Arc<Progress>>,
    _delivery: Option<Delivery>,
    _ticket: Ticket,
}

impl AnswerBody {
    pub(super) fn new(body: Body, progress: Option<Arc<Progress>>, delivery: Option<Delivery>, ticket: Ticket) -> Self {
        Self { body, rest: Bytes::new(), progress, _delivery: delivery, _ticket: ticket }
    }
}

/// Takes the next piece of a frame.
fn piece(rest: &mut Bytes) -> Bytes {
    let piece = match rest.len() {
        whole @ 0..=UNWATCHED => whole,
        length => PIECE.min(length - 1),
    };
    rest.split_to(piece)
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(progress) = &this.progress else { return Pin::new(&mut this.body).poll_frame(cx) };
        progress.end();
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => this.rest = data,
                Some(Ok(Err(other))) => return Poll::Ready(Some(Ok(other))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        progress.begin();
        Poll::Ready(Some(Ok(Frame::data(piece(&mut this.rest)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut whole = SizeHint::new();
        whole.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            whole.set_upper(upper + rest);
        }
        whole
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.end();
        }
    }
}
