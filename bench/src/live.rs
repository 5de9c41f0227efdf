//! Many readers of the live stream at the same time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::say;

/// Connections being opened at the same time: a listener's backlog is bounded.
const OPENING: usize = 100;
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Default)]
struct Counts {
    events: AtomicU64,
    lost: AtomicU64,
    over: AtomicBool,
}

/// Opens the readers and prints `OPEN` with their number, or, where there is no such route, `ABSENT` with the status. Reads
/// on for some seconds and prints `LIVE`: events a second of all readers together, and the readers that were dropped.
pub(crate) async fn run(query: SocketAddr, readers: usize, lasting: Duration) -> anyhow::Result<()> {
    let counts = Arc::new(Counts::default());
    let status = open(query).await?.1;
    if status != 200 {
        return say(&format!("ABSENT {status}"));
    }
    let mut opening = futures::stream::iter((0..readers).map(|_| open(query))).buffer_unordered(OPENING);
    let mut opened = 0_usize;
    while let Some(answer) = opening.next().await {
        let (stream, status) = answer?;
        ensure!(status == 200, "reader {opened} was answered {status}");
        tokio::spawn(read(stream, counts.clone()));
        opened += 1;
    }
    say(&format!("OPEN {opened}"))?;
    let (began, before) = (Instant::now(), counts.events.load(Ordering::Relaxed));
    tokio::time::sleep(lasting).await;
    counts.over.store(true, Ordering::Relaxed);
    let events = counts.events.load(Ordering::Relaxed) - before;
    say(&format!("LIVE {:.0} {}", events as f64 / began.elapsed().as_secs_f64(), counts.lost.load(Ordering::Relaxed)))
}

async fn open(query: SocketAddr) -> anyhow::Result<(TcpStream, u16)> {
    let opening = async {
        let mut stream = TcpStream::connect(query).await?;
        let request = format!("GET /analytics/live HTTP/1.1\r\nhost: {query}\r\naccept: text/event-stream\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        // "HTTP/1.1 200": whatever follows is read with the events.
        let mut line = [0; 12];
        stream.read_exact(&mut line).await?;
        let status = std::str::from_utf8(&line[9..]).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0);
        anyhow::Ok((stream, status))
    };
    tokio::time::timeout(PATIENCE, opening).await?
}

async fn read(stream: TcpStream, counts: Arc<Counts>) {
    let mut lines = EventLines::default();
    loop {
        // On the stack only while there is something to read: 10,000 readers wait without a buffer.
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

/// Counts lines that begin with `event:`, however they are cut into pieces.
#[derive(Default)]
struct EventLines {
    /// So many bytes of it stand at the beginning of the line; `None` in a line that is another.
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
    fn events_are_counted_however_they_are_cut() {
        let text =
            b" OK\r\nx: event:\r\n\r\n1a\r\nevent: hour\ndata: event:\n\n:\n\nevent: hour\ndata: 1\n\nevent: x\n\n";
        for size in 1..text.len() {
            let mut lines = EventLines::default();
            let count: u64 = text.chunks(size).map(|piece| lines.count(piece)).sum();
            assert_eq!(count, 3, "in pieces of {size}");
        }
    }
}
