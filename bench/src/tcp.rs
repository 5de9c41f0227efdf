//! Messages over TCP: clients that keep a window of frames without an answer full, or send one at a time. The same to a
//! server of RELP, the protocol that rsyslog acknowledges messages with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::{Args, ValueEnum};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use crate::print;

/// The load.
#[derive(Debug, Clone, Args)]
pub(crate) struct Shape {
    /// Connections, each of a client of its own
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Frames of a connection without an answer
    #[arg(long, default_value_t = 1_024)]
    window: usize,
    /// Bytes of a message
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// How long to send
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// The protocol of the server
    #[arg(long, value_enum, default_value_t = Protocol::Millrace)]
    protocol: Protocol,
}

/// A protocol with an answer for each message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Millrace,
    Relp,
}

impl Protocol {
    /// What a client sends first.
    fn hello(self, number: usize, epoch: u128) -> String {
        match self {
            Self::Millrace => format!("HELLO bench{number} epoch={epoch}\n"),
            Self::Relp => {
                let offer = "relp_version=0\nrelp_software=millrace-bench\ncommands=syslog";
                format!("1 open {} {offer}\n", offer.len())
            }
        }
    }

    /// The frame of the n-th message, from 1.
    fn frame(self, number: u64, payload: &str) -> String {
        match self {
            Self::Millrace => format!("- {number} {}\n{payload}\n", payload.len()),
            // The number 1 was that of `open`; a number has at most nine digits.
            Self::Relp => format!("{} syslog {} {payload}\n", (number - 1) % 999_999_998 + 2, payload.len()),
        }
    }

    /// The bytes of every message. The header of a message to rsyslog is a part of them.
    fn payload(self, bytes: usize) -> String {
        let head = if self == Self::Relp { "<13>1 - - - - - - " } else { "" };
        format!("{head}{}", "x".repeat(bytes.saturating_sub(head.len())))
    }

    /// Reads one answer into the buffer; fails unless it is a success.
    async fn read_answer(self, from: &mut BufReader<OwnedReadHalf>, answer: &mut Vec<u8>) -> anyhow::Result<()> {
        answer.clear();
        let good = match self {
            Self::Millrace => {
                from.read_until(b'\n', answer).await?;
                answer.starts_with(b"ACK ") || answer.starts_with(b"OK ")
            }
            // NUMBER rsp LENGTH DATA: the data may have line feeds, and one more ends the frame.
            Self::Relp => {
                for _ in 0..3 {
                    from.read_until(b' ', answer).await?;
                }
                let head = std::str::from_utf8(answer)?;
                let length: usize = head.trim_end().rsplit(' ').next().unwrap_or_default().parse()?;
                let start = answer.len();
                answer.resize(start + length + 1, 0);
                from.read_exact(&mut answer[start..]).await?;
                answer[start..].starts_with(b"200 ")
            }
        };
        ensure!(good, "the server replied {:?}", String::from_utf8_lossy(answer));
        Ok(())
    }
}

/// Prints `TCP <acknowledged> <per second> <median us> <p99 us>`; the latencies are those of whole windows.
pub(crate) async fn run(server: SocketAddr, shape: Shape) -> anyhow::Result<()> {
    let acked = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let until = began + Duration::from_secs_f64(shape.seconds);
    let clients: Vec<_> =
        (0..shape.connections).map(|n| tokio::spawn(client(n, server, shape.clone(), acked.clone(), until))).collect();
    let mut times = Vec::new();
    for client in clients {
        times.extend(client.await??);
    }
    let seconds = began.elapsed().as_secs_f64();
    times.sort_unstable();
    let at = |percent: usize| times.get(times.len() * percent / 100).map_or(0, Duration::as_micros);
    let acked = acked.load(Ordering::Relaxed);
    print(&format!("TCP {acked} {:.0} {} {}", acked as f64 / seconds, at(50), at(99)))
}

async fn client(
    number: usize,
    server: SocketAddr,
    shape: Shape,
    acked: Arc<AtomicU64>,
    until: Instant,
) -> anyhow::Result<Vec<Duration>> {
    let protocol = shape.protocol;
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut replies = BufReader::with_capacity(64 << 10, read);
    let epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    write.write_all(protocol.hello(number, epoch).as_bytes()).await?;
    let mut answer = Vec::new();
    protocol.read_answer(&mut replies, &mut answer).await.context("the answer to the first line")?;
    let (mut seq, mut times, payload) = (1_u64, Vec::new(), protocol.payload(shape.bytes));
    // Half of the window is sent while the other half is answered.
    let half = shape.window.div_ceil(2);
    let send = |seq: u64| (seq..seq + half as u64).map(|seq| protocol.frame(seq, &payload)).collect::<String>();
    let mut waiting = std::collections::VecDeque::new();
    while Instant::now() < until || !waiting.is_empty() {
        while Instant::now() < until && waiting.len() * half < shape.window {
            write.write_all(send(seq).as_bytes()).await?;
            waiting.push_back(Instant::now());
            seq += half as u64;
        }
        for _ in 0..half {
            protocol.read_answer(&mut replies, &mut answer).await.context("answers")?;
        }
        acked.fetch_add(half as u64, Ordering::Relaxed);
        times.extend(waiting.pop_front().map(|sent| sent.elapsed()));
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn reads_answers_of_relp_over_several_lines() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(b"1 rsp 12 200 OK\na=b\nc\n2 rsp 6 200 OK\n3 rsp 5 500 X\n").await.unwrap();
        let mut from = BufReader::new(stream.into_split().0);
        let mut answer = Vec::new();
        for whole in ["1 rsp 12 200 OK\na=b\nc\n", "2 rsp 6 200 OK\n"] {
            Protocol::Relp.read_answer(&mut from, &mut answer).await.unwrap();
            assert_eq!(answer, whole.as_bytes());
        }
        assert!(Protocol::Relp.read_answer(&mut from, &mut answer).await.is_err());
    }

    #[test]
    fn frames_count_the_bytes_of_their_payload() {
        for protocol in [Protocol::Millrace, Protocol::Relp] {
            let payload = protocol.payload(100);
            assert_eq!(payload.len(), 100);
            assert!(protocol.frame(7, &payload).ends_with(&format!("{payload}\n")));
        }
        assert_eq!(Protocol::Relp.frame(1, "m"), "2 syslog 1 m\n");
        assert_eq!(Protocol::Relp.frame(999_999_999, "m"), "2 syslog 1 m\n");
    }
}
