//! Clients that make a process hold what they do not take: its resident memory stays below the sum of its bounds.
#![cfg(target_os = "linux")]

use std::fs;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{Builder, ResponseFuture};
use h2::{RecvStream, SendStream};
use http::Request;
use millrace_testkit::{http as send, wait_until};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::run::{Up, WITHIN};

const BODIES_MIB: u64 = 9;
const ENCODERS_MIB: u64 = 10;
/// What the bounds do not have: connections and streams themselves, and what the allocator holds back.
const OTHERS_MIB: u64 = 32;
/// Streams of a connection: as many as a server allows.
const STREAMS: usize = 100;

/// Requests of one kind, one on each stream of connections whose clients take no byte of a body.
struct Attack {
    address: SocketAddr,
    target: &'static str,
    connections: usize,
    /// Of request or response.
    coding: &'static str,
    /// The begin of a request's body, which does not end.
    body: Option<&'static [u8]>,
}

/// What keeps the streams open.
struct Open {
    connections: JoinSet<()>,
    streams: Vec<(RecvStream, SendStream<Bytes>)>,
    waiting: Vec<(ResponseFuture, SendStream<Bytes>)>,
    statuses: Vec<u16>,
}

impl Attack {
    async fn run(&self) -> Open {
        let mut open =
            Open { connections: JoinSet::new(), streams: Vec::new(), waiting: Vec::new(), statuses: Vec::new() };
        for _ in 0..self.connections {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let (mut client, connection) = Builder::new().initial_window_size(0).handshake(stream).await.unwrap();
            open.connections.spawn(async move { drop(connection.await) });
            let mut begun = Vec::new();
            for _ in 0..STREAMS {
                let method = if self.body.is_some() { "POST" } else { "GET" };
                let request = Request::builder().method(method).uri(format!("http://{}{}", self.address, self.target));
                let request = match self.body {
                    Some(_) => {
                        request.header("content-type", "application/json").header("content-encoding", self.coding)
                    }
                    None => request.header("accept-encoding", self.coding),
                };
                client = client.ready().await.unwrap();
                let (response, mut body) = client.send_request(request.body(()).unwrap(), self.body.is_none()).unwrap();
                if let Some(begin) = self.body {
                    // Refused at once, maybe.
                    let _ = body.send_data(Bytes::from_static(begin), false);
                }
                begun.push((response, body));
            }
            for (response, body) in begun {
                if self.body.is_some() {
                    // The server waits for the rest of a body that has a place, and refuses the others.
                    open.waiting.push((response, body));
                    continue;
                }
                let response = timeout(WITHIN, response).await.unwrap().unwrap();
                open.statuses.push(response.status().as_u16());
                open.streams.push((response.into_body(), body));
            }
        }
        open
    }
}

/// The most resident memory that a process had, in MiB.
fn peak_mib(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// Without the bounds each of these takes hundreds of MiB: 60 KiB for a body, 1.4 MiB for a file, 5 MiB for an encoder.
#[tokio::test(flavor = "multi_thread")]
async fn resident_memory_stays_below_the_sum_of_the_bounds() {
    let long = "1h";
    let up = tokio::task::spawn_blocking(move || {
        Up::with(&[
            ("command.max_body_memory", &format!("{BODIES_MIB}MiB")),
            ("query.max_encoder_memory", &format!("{ENCODERS_MIB}MiB")),
            // No timeout ends what the test holds.
            ("command.limits.write_timeout", long),
            ("command.limits.body_timeout", long),
            ("command.limits.body_idle_timeout", long),
            ("query.limits.write_timeout", long),
        ])
    });
    let up = timeout(WITHIN, up).await.unwrap().unwrap();
    let begin = b"\x1f\x8b\x08\0\0\0\0\0\0\x03";
    let attacks = [
        Attack {
            address: up.command,
            target: "/docs/swagger-ui-bundle.js",
            connections: 5,
            coding: "identity",
            body: None,
        },
        Attack {
            address: up.query,
            target: "/analytics/range?from=0&to=2678400000",
            connections: 2,
            coding: "br",
            body: None,
        },
        Attack { address: up.command, target: "/analytics/batch", connections: 40, coding: "gzip", body: Some(begin) },
    ];
    // One of each first: what is made once belongs to no client.
    for attack in &attacks {
        drop(Attack { connections: 1, ..*attack }.run().await);
    }
    let id = up.service.id().unwrap();
    let before = peak_mib(id);
    let mut open = Vec::new();
    for attack in &attacks {
        open.push(attack.run().await);
    }
    for taken in &open[..2] {
        assert!(taken.statuses.iter().filter(|&&status| status == 200).count() > STREAMS, "{:?}", taken.statuses);
    }
    let address = up.command;
    let is_full = move || {
        let headers = [("content-type", "application/json")];
        send(address, "POST", "/analytics/batch", &headers, "[]").is_ok_and(|response| response.status == 503)
    };
    let full = tokio::task::spawn_blocking(move || wait_until(WITHIN, is_full));
    assert!(full.await.unwrap(), "the bodies do not fill their bound");
    let taken = peak_mib(id) - before;
    assert!(taken < BODIES_MIB + ENCODERS_MIB + OTHERS_MIB, "{taken} MiB");
}
