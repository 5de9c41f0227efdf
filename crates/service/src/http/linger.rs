//! The end of a connection whose client may still be sending: closing a socket with unread bytes sends a reset, and the
//! client may never see its answer.

use std::future::poll_fn;
use std::io;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy, sink};
use tokio::time::timeout;

use crate::net::{Order, OrderCell, Socket};

/// How long and how much is read after the last answer on a connection.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 4 << 20;

/// The socket of a connection that has ended.
#[derive(Debug)]
pub(super) struct Lingering {
    pub(super) stream: Socket,
    /// What the client has yet to get.
    pub(super) last: Bytes,
}

impl Lingering {
    /// Writes the rest and reads what the client sends, within bounds. Part of the connection: its socket is an open file.
    pub(super) async fn finish(self, order: &OrderCell) {
        let cut = poll_fn(|cx| match order.get(cx.waker()) {
            Order::Cut => Poll::Ready(()),
            Order::Run | Order::Drain => Poll::Pending,
        });
        tokio::select! {
            () = cut => {}
            _ = timeout(LINGER, self.read_to_end()) => {}
        }
    }

    async fn read_to_end(mut self) -> io::Result<()> {
        self.stream.write_all(&self.last).await?;
        self.stream.shutdown().await?;
        copy(&mut self.stream.take(LINGER_BYTES), &mut sink()).await.map(drop)
    }
}
