//! Many concurrent readers of the live stream.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::print;

/// The maximum number of connections that open concurrently: a listener's backlog is bounded.
const OPENING: usize = 100;
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Counts {
    events: AtomicU64,
    lost: AtomicU64,
    over: AtomicBool,
}

/// Opens the readers and prints `OPEN` with their number, or `ABSENT` with the status if there is no such route. Then reads
/// for some seconds and prints `LIVE` with the events per second of all readers, and the number of dropped readers.
pub(crate) async fn run(query: SocketAddr, readers: usize, lasting: Duration) -> anyhow::Result<()> {
    let counts = Arc::new(Counts::default());
    let status = open(query).await?.1;
    if status != 200 {
        return print(&format!("ABSENT {status}"));
    }
    let mut opening = futures::stream::iter((0..readers).map(|_| open(query))).buffer_unordered(OPENING);
    let mut opened = 0_usize;
    while let Some(answer) = opening.next().await {
        let (stream, status) = answer?;
        ensure!(status == 200, "reader {opened} got status {status}");
        tokio::spawn(read(stream, counts.clone()));
        opened += 1;
    }
    print(&format!("OPEN {opened}"))?;
    let (began, before) = (Instant::now(), counts.events.load(Ordering::Relaxed));
    tokio::time::sleep(lasting).await;
    counts.over.store(true, Ordering::Relaxed);
    let events = counts.events.load(Ordering::Relaxed) - before;
    print(&format!("LIVE {:.0} {}", events as f64 / began.elapsed().as_secs_f64(), counts.lost.load(Ordering::Relaxed)))
}

async fn open(query: SocketAddr) -> anyhow::Result<(TcpStream, u16)> {
    let opening = async {
        let mut stream = TcpStream::connect(query).await?;
        let request = format!("GET /analytics/live HTTP/1.1\r\nhost: {query}\r\naccept: text/event-stream\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        // "HTTP/1.1 200"; the rest of the head is read with the events.
        let mut line = [0; 12];
        stream.read_exact(&mut line).await?;
        let status = std::str::from_utf8(&line[9..]).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0);
        anyhow::Ok((stream, status))
    };
    tokio::time::timeout(TIMEOUT, opening).await?
}

async fn read(stream: TcpStream, counts: Arc<Counts>) {
    let mut lines = EventLines::default();
    loop {
        // On the stack, so that 10,000 waiting readers have no buffers.
        if stream.readable().await.is_err() {
            break;
        }
        let mut buffer = [0; 4_096];
        match stream.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => drop(counts.events.fetch_add(lines.count(&buffer[..length]), Ordering::Relaxed)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    if !counts.over.load(Ordering::Relaxed) {
        counts.lost.fetch_add(1, Ordering::Relaxed);
    }
}

/// Counts lines that start with `event:`, across any boundaries of pieces.
#[derive(Default)]
struct EventLines {
    /// How many bytes of it the current line starts with; `None` in a different line.
    matched: Option<usize>,
}

impl EventLines {
    fn count(&mut self, bytes: &[u8]) -> u64 {
        const NAME: &[u8] = b"event:";
        let mut count = 0;
        for &byte in bytes {
            self.matched = match self.matched {
                _ if byte == b'\n' => Some(0),
                Some(matched) if NAME.get(matched) == Some(&byte) => {
                    count += u64::from(matched + 1 == NAME.len());
                    Some(matched + 1)
                }
                Some(_) | None => None,
            };
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_events_across_any_boundaries() {
        let text =
            b" OK\r\nx: event:\r\n\r\n1a\r\nevent: hour\ndata: event:\n\n:\n\nevent: hour\ndata: 1\n\nevent: x\n\n";
        for size in 1..text.len() {
            let mut lines = EventLines::default();
            let count: u64 = text.chunks(size).map(|piece| lines.count(piece)).sum();
            assert_eq!(count, 3, "in pieces of {size}");
        }
    }
}
