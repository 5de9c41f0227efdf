//! A thousand hostile connections at the same time.

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use millrace_testkit::wait_until;

use super::client::Fate;
use super::embedded::{TcpUp, clients};
use super::oracle::assert_right;
use crate::run::WITHIN;

const CROWD: usize = 1_000;
const THREADS: usize = 4;
/// Of a message that is too large, which comes byte by byte.
const SLOW: &[u8] = b"h 1 900000\n";

/// Half of the files that this process may open are for other tests.
fn crowd() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let mut lines = limits.lines();
    let files = lines.find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok());
    files.map_or(CROWD, |files: usize| CROWD.min(files / 2))
}

#[derive(Clone, Copy)]
enum Kind {
    HalfFrame,
    ByteByByte,
    Garbage,
    /// Asks without an end, and reads no reply.
    Deaf,
}

struct Hostile {
    kind: Kind,
    stream: Option<TcpStream>,
    sent: usize,
}

impl Hostile {
    /// Goes on with the connection, or opens it again; returns whether it was opened.
    fn act(&mut self, server: SocketAddr) -> bool {
        let Some(stream) = &mut self.stream else {
            self.stream = TcpStream::connect(server).ok().filter(|stream| stream.set_nonblocking(true).is_ok());
            self.sent = 0;
            return self.stream.is_some();
        };
        let bytes = match self.kind {
            Kind::HalfFrame if self.sent > 0 => Vec::new(),
            Kind::HalfFrame => b"h 1 200\nhalf".to_vec(),
            Kind::ByteByByte => vec![SLOW.get(self.sent).copied().unwrap_or(b'x')],
            Kind::Garbage => vec![0xff; 500],
            Kind::Deaf => b"PING\n".repeat(1_000),
        };
        let is_over = |error: &std::io::Error| error.kind() != ErrorKind::WouldBlock;
        let closed = match self.kind {
            Kind::Deaf => false,
            _ => match stream.read(&mut [0; 256]) {
                Ok(read) => read == 0,
                Err(error) => is_over(&error),
            },
        };
        match stream.write(&bytes) {
            Ok(sent) if !closed => self.sent += sent,
            Err(error) if !closed && !is_over(&error) => {}
            _ => self.stream = None,
        }
        false
    }
}

#[test]
fn a_good_client_is_served_beside_a_thousand_hostile_connections() {
    // Short, so that the server closes them and they come again.
    let tcp = TcpUp::start(&[
        ("command.tcp.limits.max_connections", "3000"),
        ("command.tcp.limits.frame_timeout", "2s"),
        ("command.tcp.limits.write_timeout", "2s"),
    ]);
    let (crowd, server) = (crowd(), tcp.server);
    let (stop, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let hostile = |first: usize| {
        let (stop, opened) = (stop.clone(), opened.clone());
        thread::spawn(move || {
            let kinds = [Kind::HalfFrame, Kind::ByteByByte, Kind::Garbage, Kind::Deaf];
            let of = |n: usize| Hostile { kind: kinds[n / THREADS % kinds.len()], stream: None, sent: 0 };
            let mut all: Vec<Hostile> = (first..crowd).step_by(THREADS).map(of).collect();
            while !stop.load(Ordering::Relaxed) {
                for one in &mut all {
                    opened.fetch_add(usize::from(one.act(server)), Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(5));
            }
        })
    };
    let threads: Vec<_> = (0..THREADS).map(hostile).collect();
    // Each once, and those again that were closed for garbage.
    let all_came = wait_until(WITHIN, || opened.load(Ordering::Relaxed) > crowd);
    let fates = tcp.run(clients(2, 400));
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(all_came, "{} of {crowd} connections", opened.load(Ordering::Relaxed));
    assert!(fates.iter().all(|(_, fates)| fates.iter().all(|fate| *fate != Fate::Unknown)), "every frame is answered");
    assert_right(&tcp.journal, &fates, WITHIN);
}
