//! The socket under hyper: watches heads arrive and answers leave, and gives hyper's own terse errors our form.
//!
//! hyper answers a head it cannot parse by itself, with a bare status, and does not answer a slow one at all. So a head
//! that is too slow or too long is ended here by bytes that no head may hold, and the bare answer that follows is replaced
//! by a problem document on its way out. That holds for whatever stream the connection runs on.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ::http::StatusCode;
use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::guard::{Fault, Guard};
use crate::Problem;
use crate::codes::code_of;

const NO_HEAD: &[u8] = b"\0\0\r\n\r\n";
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 4 << 20;

pub(super) struct Io {
    stream: Option<TcpStream>,
    guard: Arc<Guard>,
    head_limit: usize,
    /// Bytes of the head under way, and whether its first line has ended.
    head: usize,
    line_ended: bool,
    requests: u32,
    /// What goes out in place of hyper's own answer.
    instead: Bytes,
}

impl Io {
    pub(super) fn new(stream: TcpStream, guard: Arc<Guard>, head_limit: usize) -> Self {
        let stream = Some(stream);
        Self { stream, guard, head_limit, head: 0, line_ended: false, requests: 0, instead: Bytes::new() }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn watch_head(&mut self, bytes: &[u8]) {
        if self.head == 0 {
            self.guard.head_begins();
        }
        self.head += bytes.len();
        self.line_ended = self.line_ended || bytes.contains(&b'\n');
    }

    /// Whether `bytes` are an answer hyper made up by itself; ours carry a request id.
    fn replacement(&self, bytes: &[u8]) -> Option<Bytes> {
        let digits = bytes.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
        if digits[0] != b'4' || bytes.windows(12).any(|at| at == b"x-request-id") {
            return None;
        }
        let (code, detail) = code_of(StatusCode::from_bytes(digits).ok()?);
        let problem = match self.guard.fault_code() {
            Some(fault) => Problem::new(fault, code_of(crate::status_of(fault)).1),
            None => Problem::new(code, detail),
        };
        self.guard.linger();
        Some(problem.into_http1().into())
    }

    fn poll_instead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.instead.has_remaining() {
            let bytes = self.instead.clone();
            let written = ready!(self.stream()?.poll_write(cx, &bytes))?;
            self.instead.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Io {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let requests = self.guard.requests();
        if requests != self.requests {
            (self.requests, self.head, self.line_ended) = (requests, 0, false);
        }
        let in_head = self.guard.awaits_head();
        if in_head && self.head > self.head_limit && !self.guard.faulty() {
            self.guard.set_fault(if self.line_ended { Fault::LongHead } else { Fault::LongTarget });
        }
        if self.guard.faulty() {
            let taken = NO_HEAD.len().min(buf.remaining());
            buf.put_slice(&NO_HEAD[..taken]);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(self.stream()?.poll_read(cx, buf))?;
        let read = &buf.filled()[before..];
        if in_head && !read.is_empty() {
            self.watch_head(read);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        if let Some(instead) = this.replacement(buf) {
            this.instead = instead;
            // Whatever cannot be written at once is written by the flush that follows.
            let _ = this.poll_instead(cx)?;
            return Poll::Ready(Ok(buf.len()));
        }
        let done = this.poll_instead(cx)?;
        let written = if done.is_ready() { this.stream()?.poll_write(cx, buf) } else { Poll::Pending };
        this.guard.blocked(written.is_pending());
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_instead(cx))?;
        self.stream()?.poll_shutdown(cx)
    }
}

impl Drop for Io {
    fn drop(&mut self) {
        // Closing with unread bytes sends a reset, and the client may never see its answer.
        let Some(mut stream) = self.stream.take().filter(|_| self.guard.lingers()) else { return };
        let rest = std::mem::take(&mut self.instead);
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(LINGER, async move {
                stream.write_all(&rest).await?;
                stream.shutdown().await?;
                tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
            }));
        }
    }
}
