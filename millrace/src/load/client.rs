//! One kept-alive HTTP/1.1 connection, lean enough that the load shares a small machine with what it measures: requests
//! are bytes made by the caller, an answer is parsed in place, nothing is allocated for a 204.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{error::Elapsed, timeout};

/// The largest answer taken; a batch of 1,000 results stays far below.
const MAX_ANSWER: usize = 4 << 20;

/// A connection between two exchanges.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, borrowed from its connection until the next exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer<'a> {
    /// The status code.
    pub(crate) status: u16,
    /// The seconds of Retry-After, if it says so.
    pub(crate) retry_after: Option<u64>,
    /// The body; empty too when its length was not given.
    pub(crate) body: &'a [u8],
    /// Whether the connection takes another request.
    pub(crate) reusable: bool,
}

/// Why there is no answer. The connection is of no further use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lost {
    /// Not all of the request left this machine: it cannot have been carried out.
    Unsent,
    /// The request left, and no answer to it came: it may have been carried out.
    Unanswered,
}

struct Head {
    status: u16,
    length: Option<usize>,
    retry_after: Option<u64>,
    close: bool,
    end: usize,
}

impl Connection {
    /// Connects, within a time.
    pub(crate) async fn open(authority: &str, within: Duration) -> std::io::Result<Self> {
        let stream = timeout(within, TcpStream::connect(authority)).await??;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(4096) })
    }

    /// Sends a request and waits for its answer, within a time.
    pub(crate) async fn exchange(&mut self, request: &[u8], within: Duration) -> Result<Answer<'_>, Lost> {
        // A request that is cut short is never carried out: its head or its body is incomplete.
        flat(timeout(within, self.stream.write_all(request)).await).map_err(|()| Lost::Unsent)?;
        self.buffer.clear();
        let head = flat(timeout(within, self.read_answer()).await).map_err(|()| Lost::Unanswered)?;
        let body = match head.length {
            Some(length) => &self.buffer[head.end..head.end + length],
            None => &[],
        };
        let left_over = self.buffer.len() != head.end + body.len();
        let reusable = head.length.is_some() && !head.close && !left_over;
        Ok(Answer { status: head.status, retry_after: head.retry_after, body, reusable })
    }

    async fn read_answer(&mut self) -> std::io::Result<Head> {
        let invalid = || std::io::Error::from(std::io::ErrorKind::InvalidData);
        let head = loop {
            self.read_some().await?;
            if let Some(head) = parse_head(&self.buffer).map_err(|()| invalid())? {
                break head;
            }
        };
        let length = head.length.unwrap_or(0);
        if length > MAX_ANSWER {
            return Err(invalid());
        }
        while self.buffer.len() < head.end + length {
            self.read_some().await?;
        }
        Ok(head)
    }

    async fn read_some(&mut self) -> std::io::Result<()> {
        if self.buffer.len() > MAX_ANSWER + 65_536 {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

fn flat<T>(result: Result<std::io::Result<T>, Elapsed>) -> Result<T, ()> {
    result.map_err(|_| ())?.map_err(|_| ())
}

/// Reads status and the few headers that matter. `None` while the head is incomplete.
fn parse_head(bytes: &[u8]) -> Result<Option<Head>, ()> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if bytes.len() > 65_536 { Err(()) } else { Ok(None) };
    };
    let mut lines = bytes[..end].split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii_end);
    let status_line = lines.next().ok_or(())?;
    let status: u16 = match status_line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', _, b' ', digits @ ..] if digits.len() >= 3 => number(&digits[..3])?,
        _ => return Err(()),
    };
    let bodiless = status == 204 || status == 304;
    let mut head = Head { status, length: bodiless.then_some(0), retry_after: None, close: false, end: end + 4 };
    for line in lines {
        let colon = line.iter().position(|&byte| byte == b':').ok_or(())?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") && !bodiless {
            head.length = Some(number(value)?);
        } else if name.eq_ignore_ascii_case(b"connection") {
            head.close = value.eq_ignore_ascii_case(b"close");
        } else if name.eq_ignore_ascii_case(b"retry-after") {
            // A date is allowed there too; it is not worth a parser here.
            head.retry_after = number(value).ok();
        }
    }
    Ok(Some(head))
}

fn number<N: std::str::FromStr>(digits: &[u8]) -> Result<N, ()> {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    /// A server that answers each connection's requests with these texts, then closes.
    async fn server(answers: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                for answer in answers {
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await;
                    for byte in answer.as_bytes().chunks(7) {
                        let _ = stream.write_all(byte).await;
                        tokio::task::yield_now().await;
                    }
                }
            }
        });
        authority
    }

    #[tokio::test]
    async fn answers_are_read_one_after_the_other() {
        let authority = server(&[
            "HTTP/1.1 204 No Content\r\nMillrace-Position: e/0@1\r\n\r\n",
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx",
        ])
        .await;
        let mut connection = Connection::open(&authority, WITHIN).await.unwrap();
        let expected = [
            Answer { status: 204, retry_after: None, body: b"", reusable: true },
            Answer { status: 503, retry_after: Some(2), body: b"{}", reusable: true },
            Answer { status: 200, retry_after: None, body: b"x", reusable: false },
        ];
        for answer in expected {
            assert_eq!(connection.exchange(b"GET / HTTP/1.1\r\n\r\n", WITHIN).await, Ok(answer));
        }
    }

    #[tokio::test]
    async fn what_was_sent_and_not_answered_is_told_apart() {
        for answers in
            [&[""][..], &["HTTP/1.1 20"], &["nonsense\r\n\r\n"], &["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"]]
        {
            let authority = server(answers).await;
            let mut connection = Connection::open(&authority, WITHIN).await.unwrap();
            assert_eq!(
                connection.exchange(b"GET / HTTP/1.1\r\n\r\n", WITHIN).await,
                Err(Lost::Unanswered),
                "{answers:?}"
            );
        }
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        assert!(Connection::open(&closed, WITHIN).await.is_err());
    }
}
