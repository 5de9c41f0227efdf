//! A persistent HTTP/1.1 connection for load. Not testkit's client, because load shares the cores with what it measures:
//! requests are prepared bytes, and a response is parsed in place without allocation.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The read model that served a response, by its header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Tier {
    Memory,
    Redis,
    Archive,
    /// No header, or an unknown value.
    Unknown,
}

/// A response, borrowed from its connection until the next exchange.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Response<'a> {
    pub(crate) status: u16,
    pub(crate) tier: Tier,
    /// Status line and header fields.
    pub(crate) head: &'a [u8],
    pub(crate) body: &'a [u8],
}

/// A connection between two exchanges.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    reusable: bool,
}

impl Connection {
    pub(crate) async fn open(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(1024), reusable: true })
    }

    /// False once the server has announced or done the close of the connection, as after its idle timeout.
    pub(crate) fn is_reusable(&self) -> bool {
        let idle = || matches!(self.stream.try_read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock);
        self.reusable && idle()
    }

    /// Sends a request and waits for its response. After an error the connection is of no further use.
    pub(crate) async fn exchange(&mut self, request: &[u8]) -> Result<Response<'_>> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let head = loop {
            self.read_some().await?;
            if let Some(head) = parse(&self.buffer)? {
                break head;
            }
        };
        while self.buffer.len() < head.end + head.length {
            self.read_some().await?;
        }
        self.reusable = !head.close;
        let (fields, rest) = self.buffer.split_at(head.end);
        Ok(Response { status: head.status, tier: head.tier, head: fields, body: &rest[..head.length] })
    }

    async fn read_some(&mut self) -> Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            _ if self.buffer.len() > 1 << 20 => Err(Error::new(ErrorKind::InvalidData, "the response is too long")),
            _ => Ok(()),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    length: usize,
    tier: Tier,
    close: bool,
    end: usize,
}

/// `None` while the head is incomplete. A body requires a content-length.
fn parse(bytes: &[u8]) -> Result<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let invalid = |why: &'static str| Error::new(ErrorKind::InvalidData, why);
    let head = std::str::from_utf8(&bytes[..end]).map_err(|_| invalid("the head is not text"))?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| invalid("not HTTP/1.1"))?;
    let mut length = matches!(status, 204 | 304).then_some(0);
    let (mut tier, mut close) = (Tier::Unknown, false);
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| invalid("a header without a colon"))?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = length.or(value.parse().ok());
        } else if name.eq_ignore_ascii_case("connection") {
            close = value.eq_ignore_ascii_case("close");
        } else if name.eq_ignore_ascii_case("millrace-tier") {
            tier = match value {
                "memory" => Tier::Memory,
                "redis" => Tier::Redis,
                "archive" => Tier::Archive,
                _ => Tier::Unknown,
            };
        }
    }
    let length = length.ok_or_else(|| invalid("a response without a content-length"))?;
    Ok(Some(Head { status, length, tier, close, end: end + 4 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn does_not_reuse_a_closed_connection() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connection = Connection::open(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        assert!(connection.is_reusable());
        drop(stream);
        connection.stream.readable().await.unwrap();
        assert!(!connection.is_reusable());
    }

    #[test]
    fn parses_heads() {
        let head = |text: &str| parse(text.as_bytes());
        assert!(head("HTTP/1.1 200 OK\r\ncontent-le").unwrap().is_none());
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nMillrace-Tier: redis\r\nConnection: close\r\n\r\nabc";
        let expected = Head { status: 200, length: 3, tier: Tier::Redis, close: true, end: text.len() - 3 };
        assert_eq!(head(text).unwrap(), Some(expected));
        let nothing = head("HTTP/1.1 204 No Content\r\n\r\n").unwrap().unwrap();
        assert_eq!((nothing.status, nothing.length, nothing.tier, nothing.close), (204, 0, Tier::Unknown, false));
        for bad in ["HTTP/1.1 200 OK\r\n\r\n", "SSH-2.0\r\n\r\n", "HTTP/1.1 200 OK\r\nx\r\n\r\n"] {
            assert!(head(bad).is_err(), "{bad}");
        }
    }
}
