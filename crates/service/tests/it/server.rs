//! The server alone: panics, slow handlers, framework errors, health, binding.

use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use futures::StreamExt as _;
use millrace_base::Span;
use millrace_service::health::Health;
use millrace_service::http::{HttpLimits, serve};
use millrace_service::net::reserve;
use millrace_testkit::{AsyncConnection, Response, request};
use tokio_util::sync::CancellationToken;

pub(crate) fn start(router: Router, limits: HttpLimits) -> (std::net::SocketAddr, CancellationToken) {
    let listener = reserve("test.listen", "127.0.0.1:0".parse().unwrap()).unwrap().listen().unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    tokio::spawn(serve(listener, router, limits, stop.clone()));
    (address, stop)
}

pub(crate) async fn exchange(address: std::net::SocketAddr, method: &str, target: &str) -> Response {
    AsyncConnection::open(address).await.exchange(request(method, target, &[("connection", "close")], "")).await
}

fn has(response: &Response, status: u16, code: &str) -> bool {
    response.status == status && response.json()["code"] == code
}

async fn rash() -> &'static str {
    if true { panic!("on purpose") } else { "" }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_panics_or_hangs_gets_a_problem() {
    let hang = || std::future::pending::<()>();
    let router = Router::new().route("/rash", get(rash)).route("/hang", get(hang).merge(post(hang)));
    let limits = HttpLimits { handler_timeout: Span(Duration::from_millis(100)), ..HttpLimits::default() };
    let (address, _stop) = start(router, limits);
    let response = exchange(address, "GET", "/rash").await;
    assert!(has(&response, 500, "internal") && !response.text().contains("on purpose"), "{response:?}");
    let response = exchange(address, "GET", "/hang").await;
    assert!(has(&response, 503, "unavailable") && response.header("retry-after") == Some("1"), "{response:?}");
    // Whether a write took effect is unknown.
    let response = exchange(address, "POST", "/hang").await;
    assert!(has(&response, 503, "outcome-unknown"), "{response:?}");
    let response = exchange(address, "DELETE", "/rash").await;
    assert!(
        has(&response, 405, "method-not-allowed")
            && response.header("allow").is_some_and(|allow| allow.starts_with("GET")),
        "{response:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_above_the_cap_are_refused_at_once() {
    let (entered, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let hang = move || {
        entered.send(()).unwrap();
        std::future::pending::<()>()
    };
    let (address, _stop) =
        start(Router::new().route("/", get(hang)), HttpLimits { max_in_flight: 1, ..HttpLimits::default() });
    let mut pending = AsyncConnection::open(address).await;
    pending.write_all(request("GET", "/", &[], "")).await.unwrap();
    seen.recv().await.unwrap();
    let response = exchange(address, "GET", "/").await;
    assert!(has(&response, 503, "overloaded") && response.header("retry-after").is_some(), "{response:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn public_health_has_names_and_admin_health_has_reasons() {
    let health = Health::new();
    let component = health.component("log");
    component.not_ready("no broker at example:9092");
    let (public, _public) = start(health.router(), HttpLimits::default());
    let (admin, _admin) = start(millrace_service::admin::router(&health), HttpLimits::default());
    assert!(exchange(public, "GET", "/livez").await.status == 200);
    let response = exchange(public, "GET", "/readyz").await;
    assert!(
        has(&response, 503, "unavailable")
            && response.text().contains("not ready: log")
            && !response.text().contains("example"),
        "{response:?}"
    );
    let response = exchange(admin, "GET", "/readyz").await;
    assert!(response.text().contains("example:9092"), "{response:?}");
    component.ready();
    assert!(exchange(public, "GET", "/readyz").await.status == 200);
    health.drain();
    assert!(has(&exchange(public, "GET", "/readyz").await, 503, "shutting-down"));
    let response = exchange(admin, "GET", "/metrics").await;
    assert!(response.text().contains("# TYPE millrace_http_connections gauge"), "{response:?}");
}

#[tokio::test]
async fn an_address_in_use_is_reported_with_its_setting() {
    let taken = reserve("query.listen", "127.0.0.1:0".parse().unwrap()).unwrap().listen().unwrap();
    let address = taken.local_addr().unwrap();
    let error = reserve("query.listen", address).unwrap_err().to_string();
    assert!(error.starts_with(&format!("query.listen: cannot listen on {address}: another process uses")), "{error}");
}

/// The bytes of a body that look like an error of the HTTP library are still the body.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_looks_like_a_response_head_arrives_unchanged() {
    const LINES: [&str; 3] = ["first\n", "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", "HTTP/1.1 431 x\n"];
    let body = || async {
        // Each line is a write of its own, and its length is known, so that no chunk size precedes it.
        let lines = futures::stream::iter(LINES).then(|line| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            Ok::<_, std::io::Error>(line)
        });
        let length = LINES.iter().map(|line| line.len()).sum::<usize>();
        ([("content-length", length.to_string())], axum::body::Body::from_stream(lines))
    };
    let (address, _stop) = start(Router::new().route("/", get(body)), HttpLimits::default());
    let response = exchange(address, "GET", "/").await;
    assert_eq!((response.status, response.text()), (200, &*LINES.concat()));
}
