//! A client of `tcp/1`, and what it was answered. It shares no code with the product.

use std::collections::VecDeque;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Frames sent before their replies are read.
const BURST: usize = 200;
/// Largest message of the server under test.
pub(crate) const MAX: usize = 256;

/// A client with its messages; message n has the number n + 1.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) epoch: Option<u64>,
    pub(crate) messages: Vec<Vec<u8>>,
}

/// What became of a message, as the client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Acknowledged,
    Refused,
    Unknown,
}

/// A small generator of numbers.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound
    }
}

impl Client {
    /// Messages of all lengths with all bytes; some are too large.
    pub(crate) fn random(id: &str, epoch: Option<u64>, count: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut message = |n: usize| {
            let len = if random.below(50) == 0 {
                MAX + 1 + usize::try_from(random.below(500)).unwrap()
            } else {
                usize::try_from(random.below(120)).unwrap()
            };
            let mut bytes: Vec<u8> = (0..len).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
            // No two messages of a client are alike.
            bytes.extend(n.to_string().bytes());
            bytes
        };
        Self { id: id.to_owned(), epoch, messages: (0..count).map(&mut message).collect() }
    }

    /// Sends everything, over as many connections as it takes, until each message is answered or time is up. `acked`
    /// counts for all clients.
    pub(crate) fn run(&self, servers: &[SocketAddr], within: Duration, acked: &AtomicU64) -> Vec<Fate> {
        let mut fates = vec![Fate::Unknown; self.messages.len()];
        let mut pending: VecDeque<usize> = (0..self.messages.len()).collect();
        let deadline = Instant::now() + within;
        let mut turn = 0;
        while !pending.is_empty() && Instant::now() < deadline {
            let server = servers[turn % servers.len()];
            turn += 1;
            if self.exchange(server, &mut pending, &mut fates, acked, deadline).is_err() {
                std::thread::sleep(Duration::from_millis(30));
            }
        }
        fates
    }

    fn exchange(
        &self,
        server: SocketAddr,
        pending: &mut VecDeque<usize>,
        fates: &mut [Fate],
        acked: &AtomicU64,
        deadline: Instant,
    ) -> io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&server, Duration::from_secs(2))?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.set_nodelay(true)?;
        let mut replies = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        if let Some(epoch) = self.epoch {
            writeln!(stream, "HELLO {} epoch={epoch}", self.id)?;
            replies.read_line(&mut line)?;
            if !line.starts_with("OK ") {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
        while !pending.is_empty() && Instant::now() < deadline {
            let burst: Vec<usize> = pending.iter().take(BURST).copied().collect();
            let mut frames = Vec::new();
            for &at in &burst {
                let message = &self.messages[at];
                writeln!(frames, "{} {} {}", self.id, at + 1, message.len())?;
                frames.extend_from_slice(message);
                frames.push(b'\n');
            }
            stream.write_all(&frames)?;
            let mut again = Vec::new();
            for &at in &burst {
                line.clear();
                replies.read_line(&mut line)?;
                let words: Vec<&str> = line.split_whitespace().collect();
                if words.len() < 2 || !line.ends_with('\n') || words[1] == "0" {
                    // Those that were to be sent again are still in front.
                    return Err(io::Error::other(line));
                }
                assert_eq!(words[1], (at + 1).to_string(), "replies come in the order of the frames: {line}");
                let fate = match (words[0], words.get(2).copied()) {
                    ("ACK", None) => Fate::Acknowledged,
                    ("NACK", Some("413" | "403")) => Fate::Refused,
                    ("NACK", Some("409" | "429" | "503" | "507")) => {
                        again.push(at);
                        continue;
                    }
                    _ => panic!("{line}"),
                };
                assert_eq!(fate == Fate::Refused, self.messages[at].len() > MAX, "{line}");
                fates[at] = fate;
                pending.retain(|&waiting| waiting != at);
                if fate == Fate::Acknowledged {
                    acked.fetch_add(1, Ordering::Relaxed);
                }
            }
            if !again.is_empty() {
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        Ok(())
    }
}
