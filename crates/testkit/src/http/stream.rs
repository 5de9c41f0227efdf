//! Async connections, for tests that share their runtime with the server under test. They fail the test on an error.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::response::{Response, take};

/// Longer than any response takes; a hanging test fails by it.
const PATIENCE: Duration = Duration::from_mins(1);

/// An async connection. Its methods fail the test after a minute.
#[derive(Debug)]
pub struct AsyncConnection {
    stream: TcpStream,
    received: Vec<u8>,
    head_only: bool,
}

impl AsyncConnection {
    /// Connects.
    ///
    /// # Panics
    /// If the server does not accept the connection.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap_or_else(|error| panic!("{address}: {error}"));
        Self { stream, received: Vec::new(), head_only: false }
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// If the connection is closed: a server may respond and close before it has read everything.
    pub async fn write_all(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let bytes = bytes.as_ref();
        self.head_only = bytes.starts_with(b"HEAD ");
        self.stream.write_all(bytes).await
    }

    /// Closes the client's side.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn shutdown(&mut self) -> std::io::Result<()> {
        self.stream.shutdown().await
    }

    /// Reads the next final response.
    ///
    /// # Panics
    /// If there is none in time, or a part of one.
    pub async fn response(&mut self) -> Response {
        let response = async {
            loop {
                if let Some(response) = take(&mut self.received, self.head_only, false)? {
                    return Ok(response);
                }
                if self.stream.read_buf(&mut self.received).await? == 0 {
                    let last = take(&mut self.received, self.head_only, true)?;
                    return last.ok_or(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
        };
        let response: std::io::Result<Response> = timeout(PATIENCE, response).await.expect("a response in time");
        response.unwrap_or_else(|error| panic!("{error} after {:?}", String::from_utf8_lossy(&self.received)))
    }

    /// Sends a request and reads its response.
    ///
    /// # Panics
    /// As [`Self::response`].
    pub async fn exchange(&mut self, request: impl AsRef<[u8]>) -> Response {
        let _ = self.write_all(request).await;
        self.response().await
    }

    /// Reads until `text` has come, and returns everything received so far, heads and chunk sizes included.
    ///
    /// # Panics
    /// If the connection ends before it, or in time it does not come.
    pub async fn received_until(&mut self, text: &str) -> String {
        let reading = async {
            loop {
                let received = String::from_utf8_lossy(&self.received).into_owned();
                if received.contains(text) {
                    return received;
                }
                let read = self.stream.read_buf(&mut self.received).await.expect("the connection is open");
                assert_ne!(read, 0, "closed after {received:?}");
            }
        };
        timeout(PATIENCE, reading).await.expect("the text in time")
    }

    /// Whether the server closes the connection, by end or reset, and sends nothing more.
    ///
    /// # Panics
    /// If it does not in time.
    pub async fn closes(&mut self) -> bool {
        let end = timeout(PATIENCE, self.stream.read_to_end(&mut self.received)).await.expect("a close in time");
        end.is_err() || self.received.is_empty()
    }

    /// The socket, without what was received before.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }
}
