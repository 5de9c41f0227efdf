//! Clients that do not read the rest of an answer, which is in the buffers of its connection.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use millrace_base::Span;
use millrace_service::ServiceContext;
use millrace_service::auth::Authenticator;
use millrace_service::cors::Cors;
use millrace_service::health::Health;
use millrace_service::http::HttpLimits;
use millrace_service::net::{Proxies, Tls, TlsConfig};
use millrace_testkit::{AsyncConnection, request};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::tls::{client, encrypted, renew};

/// More than the sockets of both ends take, and less than a connection buffers.
const BODY: usize = 48 << 10;
/// For the socket of each end.
const SOCKET_BUFFER: u32 = 4 << 10;
const HOUR: Span = Span(Duration::from_hours(1));
const SOON: Span = Span::from_millis(300);

/// A server whose connections have small buffers.
fn start(limits: HttpLimits, tls: Option<Tls>) -> (SocketAddr, DropGuard) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_send_buffer_size(SOCKET_BUFFER).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(64).unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/", get(async || "~".repeat(BODY))).route("/livez", get(async || "live"));
    let (health, stop) = (Health::new(), CancellationToken::new());
    let context = ServiceContext {
        health,
        stop: stop.clone(),
        auth: Authenticator::off(),
        tls,
        proxies: Proxies::default(),
        cors: Cors::default(),
    };
    tokio::spawn(context.serve_http(listener, router, limits, async || {}));
    (address, stop.drop_guard())
}

async fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(SOCKET_BUFFER).unwrap();
    socket.connect(address).await.unwrap()
}

/// Waits until the server closes a connection whose head does not end; timeouts that are as long have passed for others.
async fn after_a_slow_head(address: SocketAddr, tls: bool) {
    let mut slow = TcpStream::connect(address).await.unwrap();
    // Without a handshake an encrypted connection ends after five seconds.
    slow.write_all(if tls { &b""[..] } else { b"GET / HTTP/1.1\r\n" }).await.unwrap();
    let _ = slow.read_to_end(&mut Vec::new()).await;
}

/// How much of the body arrives.
async fn received(mut stream: impl AsyncRead + Unpin) -> usize {
    let (mut received, mut buffer) = (Vec::new(), [0; 1 << 10]);
    loop {
        match tokio::time::timeout(Duration::from_secs(30), stream.read(&mut buffer)).await.expect("bytes or an end") {
            Ok(0) | Err(_) => {
                let head = received.windows(4).position(|end| end == b"\r\n\r\n");
                return head.map_or(0, |head| received.len() - head - 4);
            }
            Ok(count) => received.extend_from_slice(&buffer[..count]),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_still_sent_is_not_idle() {
    let limits = HttpLimits {
        idle_timeout: SOON,
        head_timeout: Span::from_secs(3),
        write_timeout: HOUR,
        ..HttpLimits::default()
    };
    let (address, _stop) = start(limits, None);
    let mut stream = connect(address).await;
    stream.write_all(&request("GET", "/", &[("connection", "close")], "")).await.unwrap();
    let health = request("GET", "/livez", &[("connection", "close")], "");
    assert_eq!(AsyncConnection::open(address).await.exchange(health).await.status, 200);
    after_a_slow_head(address, false).await;
    assert_eq!(received(stream).await, BODY);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_of_an_encrypted_answer_has_a_timeout() {
    let directory = tempfile::tempdir().unwrap();
    let certificate = renew(directory.path());
    let file = |name| directory.path().join(name);
    let config = TlsConfig {
        certificate_file: file("cert.pem"),
        key_file: file("key.pem"),
        terminated_upstream: false,
        ..TlsConfig::default()
    };
    let tls = Tls::start(&config, &Health::new(), CancellationToken::new()).unwrap();
    let limits = HttpLimits { write_timeout: SOON, idle_timeout: HOUR, ..HttpLimits::default() };
    let (address, _stop) = start(limits, tls);
    let connector = client(&[certificate], rustls::ALL_VERSIONS, &["http/1.1"]);
    let mut stream = encrypted(&connector, connect(address).await).await.unwrap();
    stream.write_all(&request("GET", "/", &[("connection", "close")], "")).await.unwrap();
    after_a_slow_head(address, true).await;
    assert!(received(stream).await < BODY);
}
