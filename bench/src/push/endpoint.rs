//! An endpoint that verifies nothing: it answers 204 to every request, and notes which message came when. Not axum, because
//! it shares the cores with what sends.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// The longest request.
const MAX_REQUEST: usize = 1 << 20;
/// Instead of a pause: there is no answer.
const NEVER: u64 = u64::MAX;

/// What came to an endpoint.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    requests: Mutex<Vec<(u64, Instant)>>,
    open: AtomicUsize,
    most_open: AtomicUsize,
    /// The pause before an answer, in ms.
    pause_ms: AtomicU64,
}

impl Arrivals {
    /// The number of requests so far.
    pub(super) fn count(&self) -> usize {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Each request so far: the number of its message, and when it came.
    pub(super) fn take(&self) -> Vec<(u64, Instant)> {
        std::mem::take(&mut self.requests.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The most connections that were open at a time.
    pub(super) fn most_open(&self) -> usize {
        self.most_open.load(Ordering::Relaxed)
    }

    /// From now on answers come after so many ms.
    pub(super) fn slow_down(&self, pause_ms: u64) {
        self.pause_ms.store(pause_ms, Ordering::Relaxed);
    }

    /// From now on connections end without an answer.
    pub(super) fn die(&self) {
        self.pause_ms.store(NEVER, Ordering::Relaxed);
    }

    fn record(&self, number: u64) {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner).push((number, Instant::now()));
    }
}

/// Listens, and serves until the process ends.
pub(super) async fn listen(address: SocketAddr) -> Result<(SocketAddr, Arc<Arrivals>)> {
    let listener = TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let arrivals = Arc::new(Arrivals::default());
    let accepting = arrivals.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let arrivals = accepting.clone();
            tokio::spawn(async move {
                let open = arrivals.open.fetch_add(1, Ordering::Relaxed) + 1;
                arrivals.most_open.fetch_max(open, Ordering::Relaxed);
                // An error ends the connection, as its end does: the sender notices.
                let _ = serve(stream, &arrivals).await;
                arrivals.open.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    Ok((address, arrivals))
}

async fn serve(mut stream: TcpStream, arrivals: &Arrivals) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4_096);
    loop {
        let (end, length) = loop {
            if let Some(head) = head(&buffer)? {
                break head;
            }
            read_some(&mut stream, &mut buffer).await?;
        };
        while buffer.len() < end + length {
            read_some(&mut stream, &mut buffer).await?;
        }
        arrivals.record(number(&buffer[end..end + length]));
        match arrivals.pause_ms.load(Ordering::Relaxed) {
            0 => {}
            NEVER => return Ok(()),
            pause_ms => tokio::time::sleep(Duration::from_millis(pause_ms)).await,
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
        buffer.drain(..end + length);
    }
}

async fn read_some(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<()> {
    match stream.read_buf(buffer).await? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ if buffer.len() > MAX_REQUEST => Err(Error::new(ErrorKind::InvalidData, "the request is too long")),
        _ => Ok(()),
    }
}

/// Where a head ends, and the length of its body; `None` while it is incomplete.
fn head(bytes: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..end]).map_err(|error| Error::new(ErrorKind::InvalidData, error))?;
    let length = text.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse().ok() } else { None }
    });
    let length = length.ok_or_else(|| Error::new(ErrorKind::InvalidData, "a request without a content-length"))?;
    Ok(Some((end + 4, length)))
}

/// The number at the beginning of a message, which may be a JSON text.
fn number(body: &[u8]) -> u64 {
    let digits = body.iter().skip_while(|&&byte| byte == b'"').take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, &digit| number * 10 + u64::from(digit - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_heads_and_numbers() {
        assert_eq!(head(b"POST /hook HTTP/1.1\r\ncontent-le").unwrap(), None);
        let request = b"POST /hook HTTP/1.1\r\nhost: a:1\r\nContent-Length: 5\r\n\r\n00007";
        assert_eq!(head(request).unwrap(), Some((request.len() - 5, 5)));
        assert!(head(b"POST /hook HTTP/1.1\r\n\r\n").is_err());
        assert_eq!((number(b"0000000042 xxx"), number(b"\"0000000042 xxx\""), number(b"x")), (42, 42, 0));
    }

    #[tokio::test]
    async fn answers_each_request_of_a_connection() {
        let (address, arrivals) = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let mut connection = crate::http::Connection::open(address).await.unwrap();
        for number in [3, 4] {
            let request = crate::requests::with_body("POST", address, "/hook", "text/plain", &format!("{number} x"));
            assert_eq!(connection.exchange(&request).await.unwrap().status, 204);
        }
        assert_eq!(arrivals.most_open(), 1);
        assert_eq!(arrivals.take().iter().map(|(number, _)| *number).collect::<Vec<_>>(), [3, 4]);
    }
}
