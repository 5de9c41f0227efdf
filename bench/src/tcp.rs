//! Messages over TCP: clients that keep a window of frames without an answer full, or send one at a time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

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
    let stream = TcpStream::connect(server).await?;
    stream.set_nodelay(true)?;
    let (read, mut write) = stream.into_split();
    let mut replies = BufReader::with_capacity(64 << 10, read);
    let epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_millis();
    write.write_all(format!("HELLO bench{number} epoch={epoch}\n").as_bytes()).await?;
    let mut line = String::new();
    replies.read_line(&mut line).await?;
    let (mut seq, mut times, payload) = (1_u64, Vec::new(), "x".repeat(shape.bytes));
    // Half of the window is sent while the other half is answered.
    let half = shape.window.div_ceil(2);
    let send = |seq: u64| {
        let frames = (seq..seq + half as u64).map(|seq| format!("- {seq} {}\n{payload}\n", shape.bytes));
        frames.collect::<String>()
    };
    let mut waiting = std::collections::VecDeque::new();
    while Instant::now() < until || !waiting.is_empty() {
        while Instant::now() < until && waiting.len() * half < shape.window {
            write.write_all(send(seq).as_bytes()).await?;
            waiting.push_back(Instant::now());
            seq += half as u64;
        }
        for _ in 0..half {
            line.clear();
            replies.read_line(&mut line).await.context("replies")?;
            if !line.starts_with("ACK ") {
                bail!("the server replied {line:?}");
            }
        }
        acked.fetch_add(half as u64, Ordering::Relaxed);
        times.extend(waiting.pop_front().map(|sent| sent.elapsed()));
    }
    Ok(times)
}
