//! The bytes of a connection, encrypted or not: those that were read, and the replies on their way out.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use millrace_service::net::Socket;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _, ReadBuf};

/// Room for one read.
const READ: usize = 64 << 10;
/// A record of TLS: no more than that is encrypted before it has left, so that a slow client is seen to take replies.
const RECORD: usize = 16 << 10;
/// What is read and thrown away of a connection that is closed with input unread: a reset would destroy the last reply.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

/// What happened on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    /// Input came; none if it has ended.
    Read(usize),
    /// Every reply has left.
    Sent,
}

/// Both directions of a connection.
pub(super) struct Wire {
    socket: Socket,
    /// What was read and not handed on.
    pub(super) input: BytesMut,
    /// Replies; those before `sent` are handed to the socket.
    output: Vec<u8>,
    sent: usize,
    /// The socket may hold bytes back: encrypted ones that the kernel has not taken.
    unflushed: bool,
    /// Since when the client takes no replies.
    blocked_since: Option<Instant>,
}

impl Wire {
    pub(super) fn new(socket: Socket) -> Self {
        let (input, output) = (BytesMut::new(), Vec::new());
        Self { socket, input, output, sent: 0, unflushed: false, blocked_since: None }
    }

    /// Takes replies over.
    pub(super) fn push(&mut self, replies: &mut Vec<u8>) {
        if self.output.is_empty() {
            std::mem::swap(&mut self.output, replies);
        } else {
            self.output.append(replies);
        }
    }

    /// Bytes of replies that the socket has not taken.
    pub(super) fn backlog(&self) -> usize {
        self.output.len() - self.sent
    }

    /// Whether every reply has left.
    pub(super) fn is_sent(&self) -> bool {
        self.output.is_empty() && !self.unflushed
    }

    /// For how long the client takes no replies.
    pub(super) fn blocked(&self) -> Duration {
        self.blocked_since.map(|since| since.elapsed()).unwrap_or_default()
    }

    /// The next event; reads input only if `reads`.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, reads: bool) -> Poll<io::Result<Event>> {
        if !self.is_sent() && self.poll_send(cx)?.is_ready() {
            return Poll::Ready(Ok(Event::Sent));
        }
        if reads { self.poll_read(cx).map_ok(Event::Read) } else { Poll::Pending }
    }

    /// Sends replies; ready once all have left.
    ///
    /// # Errors
    /// The connection is lost.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = self.poll_records(cx);
        if polled.is_pending() {
            self.blocked_since.get_or_insert_with(Instant::now);
        }
        polled
    }

    fn poll_records(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.unflushed {
                ready!(Pin::new(&mut self.socket).poll_flush(cx))?;
                self.unflushed = false;
                self.blocked_since = None;
            }
            let rest = &self.output[self.sent..];
            if rest.is_empty() {
                self.output.clear();
                self.sent = 0;
                return Poll::Ready(Ok(()));
            }
            let record = &rest[..rest.len().min(RECORD)];
            let written = ready!(Pin::new(&mut self.socket).poll_write(cx, record))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += written;
            self.unflushed = true;
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match &mut self.socket {
            Socket::Plain(stream) => loop {
                // Capacity only once there is input: most connections are idle.
                ready!(stream.poll_read_ready(cx))?;
                self.input.reserve(READ);
                match stream.try_read_buf(&mut self.input) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    read => return Poll::Ready(read),
                }
            },
            Socket::Tls(stream) => {
                let mut record = [const { MaybeUninit::<u8>::uninit() }; RECORD];
                let mut read = ReadBuf::uninit(&mut record);
                match ready!(Pin::new(stream.as_mut()).poll_read(cx, &mut read)) {
                    Ok(()) => {
                        self.input.extend_from_slice(read.filled());
                        Poll::Ready(Ok(read.filled().len()))
                    }
                    // Without a farewell. Frames have lengths of their own, so that none is cut without notice.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(0)),
                    Err(error) => Poll::Ready(Err(error)),
                }
            }
        }
    }

    /// A connection that waits holds no more memory than what it has not handed on.
    pub(super) fn shrink(&mut self) {
        if self.input.is_empty() {
            self.input = BytesMut::new();
        } else if self.input.capacity() > 8 * self.input.len() {
            self.input = BytesMut::from(&self.input[..]);
        }
        if self.output.is_empty() && self.output.capacity() > READ {
            self.output = Vec::new();
        }
    }

    /// Closes the connection so that the client gets the last reply, also if it has sent what nobody reads.
    pub(super) async fn close(mut self, ended_by_client: bool) {
        let drain = async {
            if self.socket.shutdown().await.is_err() || ended_by_client {
                return;
            }
            let (mut left, mut scrap) = (LINGER_BYTES, vec![0; 8 << 10]);
            while left > 0 {
                match self.socket.read(&mut scrap).await {
                    Ok(read) if read > 0 => left = left.saturating_sub(read),
                    _ => return,
                }
            }
        };
        let _ = tokio::time::timeout(LINGER, drain).await;
    }
}
