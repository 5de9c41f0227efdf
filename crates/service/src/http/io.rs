//! The socket under hyper: detects the HTTP version, watches heads arrive and answers leave, and replaces hyper's own
//! answers by problem documents.
//!
//! hyper answers a head that it cannot parse by itself, with a bare status. Such an answer is recognized by the state of
//! the connection, never by its bytes: it is what hyper writes while no request is under way and no answer of ours is
//! unsent.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::http::StatusCode;
use bytes::{Buf, Bytes};
use millrace_contracts::{Code, Refusal};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::guard::Guard;
use super::linger::Lingering;
use super::problem::Problem;
use super::status::refusal_of;
use crate::net::Socket;

/// What every HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of a request line around its target: method, version, spaces and line end.
const AROUND_TARGET: usize = 24;

/// The version that a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    Http1,
    Http2,
}

pub(super) struct Io {
    stream: Option<Socket>,
    guard: Arc<Guard>,
    max_target: usize,
    /// The first bytes of the connection, which decided its version: `start[taken..read]` is what hyper has yet to read.
    start: [u8; PREFACE.len()],
    read: usize,
    taken: usize,
    version: Option<Version>,
    /// Bytes of the first line of the head under way.
    line: usize,
    line_ended: bool,
    head_begun: bool,
    /// Number of requests at the last read: when it changes, the head under way has ended.
    requests: u32,
    /// What goes out in place of hyper's own answer.
    replacement: Bytes,
}

impl Io {
    pub(super) fn new(stream: Socket, guard: Arc<Guard>, max_target: usize) -> Self {
        Self {
            stream: Some(stream),
            guard,
            max_target,
            start: [0; PREFACE.len()],
            read: 0,
            taken: 0,
            version: None,
            line: 0,
            line_ended: false,
            head_begun: false,
            requests: 0,
            replacement: Bytes::new(),
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut Socket>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Reads until the bytes are HTTP/2's preface, or cannot become it any more.
    pub(super) fn poll_version(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Version>> {
        loop {
            let version = match &self.start[..self.read] {
                start if start == PREFACE => Version::Http2,
                start if PREFACE.starts_with(start) => {
                    let mut buffer = self.start;
                    let mut unread = ReadBuf::new(&mut buffer[self.read..]);
                    ready!(self.stream()?.poll_read(cx, &mut unread))?;
                    let count = unread.filled().len();
                    if count == 0 {
                        return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
                    }
                    self.watch_head(&buffer[self.read..self.read + count]);
                    self.start = buffer;
                    self.read += count;
                    continue;
                }
                _ => Version::Http1,
            };
            self.version = Some(version);
            if version == Version::Http2 {
                self.guard.set_http2();
            }
            return Poll::Ready(Ok(version));
        }
    }

    /// Notes bytes of a head of HTTP/1.
    fn watch_head(&mut self, bytes: &[u8]) {
        if !self.head_begun {
            self.head_begun = true;
            self.guard.begin_head();
        }
        if !self.line_ended {
            let end = memchr::memchr(b'\n', bytes);
            self.line_ended = end.is_some();
            self.line += end.unwrap_or(bytes.len());
        }
    }

    /// The problem document for an answer that hyper made up by itself: it writes one only about a head.
    fn replace(&mut self, answer: &[u8]) -> Option<Bytes> {
        if self.version != Some(Version::Http1) || !self.guard.nothing_to_send() {
            return None;
        }
        let status = StatusCode::from_bytes(answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?).ok()?;
        let refusal = match status {
            // hyper bounds the whole head; the length of the first line shows whether the target exceeds its own bound.
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE if self.line > self.max_target + AROUND_TARGET => {
                refusal_of(StatusCode::URI_TOO_LONG)
            }
            status => refusal_of(status),
        };
        self.guard.linger();
        Some(Problem::from(refusal).into_http1().into())
    }

    /// Whether the client has closed its side. hyper does not read while it answers, so an answer that has nothing to write
    /// would outlive its client. Wakes the task when that changes.
    fn client_left(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut byte = [0];
        let mut peeked = ReadBuf::new(&mut byte);
        Ok(matches!(self.stream()?.poll_peek(cx, &mut peeked)?, Poll::Ready(0)))
    }

    fn poll_replacement(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.replacement.has_remaining() {
            let bytes = self.replacement.clone();
            let written = ready!(self.stream()?.poll_write(cx, &bytes))?;
            self.replacement.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.taken < this.read {
            let rest = &this.start[this.taken..this.read];
            let count = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..count]);
            this.taken += count;
            return Poll::Ready(Ok(()));
        }
        let requests = this.guard.requests();
        if requests != this.requests {
            (this.requests, this.line, this.line_ended, this.head_begun) = (requests, 0, false, false);
        }
        let in_head = this.guard.awaits_head();
        let before = buf.filled().len();
        ready!(this.stream()?.poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        if in_head && !read.is_empty() {
            this.watch_head(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(replacement) = this.replace(buf) {
            this.replacement = replacement;
            // The flush that follows writes what cannot be written at once.
            let _ = this.poll_replacement(cx)?;
            return Poll::Ready(Ok(buf.len()));
        }
        let done = this.poll_replacement(cx)?;
        let written = if done.is_ready() { this.stream()?.poll_write(cx, buf) } else { Poll::Pending };
        this.guard.blocked(written.is_pending());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.poll_replacement(cx)?;
        let sent = if sent.is_ready() { self.stream()?.poll_flush(cx)? } else { Poll::Pending };
        // An encrypted connection takes 64 KiB that have yet to leave.
        self.guard.blocked(sent.is_pending());
        ready!(sent);
        self.guard.flushed();
        if self.guard.is_endless() && self.client_left(cx)? {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(cx))?;
        self.stream()?.poll_shutdown(cx)
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        let mut last = std::mem::take(&mut self.replacement);
        if self.guard.head_timed_out() && self.guard.nothing_to_send() && last.is_empty() {
            let refusal = Refusal::new(Code::RequestTimeout, "the head of the request took too long to arrive");
            last = Problem::from(refusal).into_http1().into();
        }
        if let Some(stream) = self.stream.take().filter(|_| self.guard.lingers()) {
            self.guard.leave(Lingering { stream, last });
        }
    }
}
