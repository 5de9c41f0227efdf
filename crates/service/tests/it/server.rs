//! The server on its own: panics, slow handlers, framework errors, health, reserveing.

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use millrace_service::config::Span;
use millrace_service::health::Health;
use millrace_service::http::{HttpLimits, reserve, serve};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

fn start(router: Router, limits: HttpLimits) -> (std::net::SocketAddr, CancellationToken) {
    let listener = reserve("test.listen", "127.0.0.1:0".parse().unwrap()).unwrap().listen().unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, router, limits, stop.clone()));
    (address, stop)
}

async fn ask(address: std::net::SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    let end = stream.read_to_string(&mut text);
    tokio::time::timeout(Duration::from_secs(30), end).await.expect("an answer in time").unwrap();
    text
}

fn has(text: &str, status: u16, code: &str) -> bool {
    text.starts_with(&format!("HTTP/1.1 {status} ")) && text.contains(&format!("\"code\":\"{code}\""))
}

async fn rash() -> &'static str {
    if true { panic!("on purpose") } else { "" }
}

#[tokio::test(flavor = "multi_thread")]
async fn handlers_that_panic_or_hang_are_answered() {
    let hang = || std::future::pending::<()>();
    let router = Router::new().route("/rash", get(rash)).route("/hang", get(hang).merge(post(hang)));
    let limits = HttpLimits { handler_timeout: Span(Duration::from_millis(100)), ..HttpLimits::default() };
    let (address, _stop) = start(router, limits);
    let text = ask(address, "GET /rash").await;
    assert!(has(&text, 500, "internal") && !text.contains("on purpose"), "{text}");
    let text = ask(address, "GET /hang").await;
    assert!(has(&text, 503, "unavailable") && text.contains("retry-after: 1"), "{text}");
    // Whether a write took effect cannot be known.
    let text = ask(address, "POST /hang").await;
    assert!(has(&text, 503, "outcome-unknown"), "{text}");
    let text = ask(address, "DELETE /rash").await;
    assert!(has(&text, 405, "method-not-allowed") && text.contains("allow: GET"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_past_the_cap_are_shed_at_once() {
    let (entered, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let hang = move || {
        entered.send(()).unwrap();
        std::future::pending::<()>()
    };
    let (address, _stop) =
        start(Router::new().route("/", get(hang)), HttpLimits { in_flight: 1, ..HttpLimits::default() });
    let mut held = TcpStream::connect(address).await.unwrap();
    held.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    seen.recv().await.unwrap();
    let text = ask(address, "GET /").await;
    assert!(has(&text, 503, "overloaded") && text.contains("retry-after: "), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_tells_the_public_what_and_the_admin_why() {
    let health = Health::new();
    let component = health.component("log");
    component.not_ready("no broker at example:9092");
    let (public, _public) = start(health.router(), HttpLimits::default());
    let (admin, _admin) = start(millrace_service::admin::router(&health), HttpLimits::default());
    assert!(ask(public, "GET /livez").await.starts_with("HTTP/1.1 200 "));
    let text = ask(public, "GET /readyz").await;
    assert!(has(&text, 503, "unavailable") && text.contains("not ready: log") && !text.contains("example"), "{text}");
    let text = ask(admin, "GET /readyz").await;
    assert!(text.contains("example:9092"), "{text}");
    component.ready();
    assert!(ask(public, "GET /readyz").await.starts_with("HTTP/1.1 200 "));
    health.drain();
    assert!(has(&ask(public, "GET /readyz").await, 503, "shutting-down"));
    let text = ask(admin, "GET /metrics").await;
    assert!(text.contains("# TYPE millrace_http_connections gauge"), "{text}");
}

#[tokio::test]
async fn a_taken_address_is_named_with_its_setting() {
    let taken = reserve("query.listen", "127.0.0.1:0".parse().unwrap()).unwrap().listen().unwrap();
    let address = taken.local_addr().unwrap();
    let error = reserve("query.listen", address).unwrap_err().to_string();
    assert!(error.starts_with(&format!("query.listen: cannot listen on {address}: the address is taken")), "{error}");
}
