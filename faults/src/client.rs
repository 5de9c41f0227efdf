//! One HTTP/1.1 connection, written so that what is not known is never taken for known.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How one request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sent {
    /// No connection: nothing was sent.
    NotSent,
    /// Perhaps it arrived: no answer, or half of one.
    Unknown,
    /// The answer's status, its Retry-After in seconds, and its body.
    Answered {
        /// The status.
        status: u16,
        /// Retry-After in seconds.
        retry_after: Option<u64>,
        /// The body.
        body: String,
    },
}

/// A connection that is made when it is needed and kept while it works.
#[derive(Debug)]
pub struct Connection {
    address: SocketAddr,
    timeout: Duration,
    stream: Option<TcpStream>,
}

impl Connection {
    /// To this address; no request waits longer than `timeout`.
    pub fn new(address: SocketAddr, timeout: Duration) -> Self {
        Self { address, timeout, stream: None }
    }

    /// Sends a request without a body and waits for its answer.
    pub fn send(&mut self, method: &str, target: &str) -> Sent {
        let request = format!("{method} {target} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\n\r\n", self.address);
        if self.stream.is_none() {
            self.stream = self.connect().ok();
        }
        let Some(stream) = &mut self.stream else { return Sent::NotSent };
        let answer = stream.write_all(request.as_bytes()).and_then(|()| read_answer(stream));
        // Of a connection that was kept the server may just have taken leave: an end without an answer is not known.
        let (sent, keep) = answer.unwrap_or((Sent::Unknown, false));
        if !keep {
            self.stream = None;
        }
        sent
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let stream = TcpStream::connect_timeout(&self.address, self.timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.timeout))?;
        stream.set_write_timeout(Some(self.timeout))?;
        Ok(stream)
    }
}

/// An answer with a content-length, and whether the connection may be used again.
fn read_answer(stream: &mut TcpStream) -> io::Result<(Sent, bool)> {
    let bad = || io::Error::new(io::ErrorKind::InvalidData, "not an answer");
    let mut bytes = Vec::with_capacity(1_024);
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if bytes.len() > 64 << 10 {
            return Err(bad());
        }
        read_more(stream, &mut bytes)?;
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status: u16 = head.split_whitespace().nth(1).and_then(|word| word.parse().ok()).ok_or_else(bad)?;
    let header = |name: &str| {
        let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
        lines.map(|(key, value)| (key, value.trim())).find(|(key, _)| key.eq_ignore_ascii_case(name))
    };
    let length = match header("content-length") {
        Some((_, value)) => value.parse().map_err(|_| bad())?,
        None if matches!(status, 204 | 304) => 0,
        None => return Err(bad()),
    };
    while bytes.len() < end + 4 + length {
        read_more(stream, &mut bytes)?;
    }
    let body = String::from_utf8_lossy(&bytes[end + 4..end + 4 + length]).into_owned();
    let retry_after = header("retry-after").and_then(|(_, value)| value.parse().ok());
    let keep = header("connection").is_none_or(|(_, value)| !value.eq_ignore_ascii_case("close"));
    Ok((Sent::Answered { status, retry_after, body }, keep))
}

fn read_more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut piece = [0; 4_096];
    match stream.read(&mut piece)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        read => {
            bytes.extend_from_slice(&piece[..read]);
            Ok(())
        }
    }
}
