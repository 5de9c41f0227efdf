//! HTTP/2: ordinary clients are served, and those that do not read cost others nothing.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::{get, post};
use futures::future::join_all;
use h2::client::{Builder, SendRequest};
use http::{Request, StatusCode};
use millrace_base::Span;
use millrace_service::health::Health;
use millrace_service::http::HttpLimits;
use tokio::net::TcpStream;

use crate::server::{exchange, start};

/// A connection whose streams have this window.
pub(crate) async fn connect(address: SocketAddr, window: u32) -> SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = Builder::new().initial_window_size(window).handshake(stream).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) fn get_request(path: &str) -> Request<()> {
    Request::get(format!("http://localhost{path}")).body(()).unwrap()
}

/// A client whose requests leave in one flight, together with the preface: nothing is sent before its connection is driven.
async fn first_flight(address: SocketAddr) -> (SendRequest<Bytes>, impl Future<Output = Result<(), h2::Error>>) {
    h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap()
}

/// The body is longer than a head may be.
#[tokio::test(flavor = "multi_thread")]
async fn a_first_request_with_a_body_of_22_kb_is_answered() {
    let router = Router::new().route("/", post(async |body: Bytes| body.len().to_string()));
    let (address, _stop) = start(router, HttpLimits::default());
    let (mut client, connection) = first_flight(address).await;
    let request = Request::post("http://localhost/").body(()).unwrap();
    let (response, mut body) = client.send_request(request, false).unwrap();
    body.send_data(vec![b'x'; 22_000].into(), true).unwrap();
    tokio::spawn(connection);
    let mut response = response.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.body_mut().data().await.unwrap().unwrap(), "22000");
}

/// Their heads together are longer than one may be.
#[tokio::test(flavor = "multi_thread")]
async fn sixty_requests_in_the_first_flight_are_answered() {
    let (address, _stop) = start(Router::new().route("/", get(async || "ok")), HttpLimits::default());
    let (mut client, connection) = first_flight(address).await;
    let request = |i| {
        let mut request = get_request("/");
        request.headers_mut().insert("x-padding", format!("{i:01000}").parse().unwrap());
        request
    };
    let responses: Vec<_> = (0..60).map(|i| client.send_request(request(i), true).unwrap().0).collect();
    tokio::spawn(connection);
    for response in join_all(responses).await {
        assert_eq!(response.unwrap().status(), StatusCode::OK);
    }
}

/// Clients with a window of zero fill the bounds of the listener. Requests of others are answered, and the streams are
/// reset, endless ones included, while their connection goes on.
#[tokio::test(flavor = "multi_thread")]
async fn streams_whose_client_does_not_read_are_reset_and_block_nobody() {
    const STREAMS: usize = 20;
    let endless = async || Body::from_stream(futures::stream::repeat(Ok::<_, Infallible>("event\n")));
    let effects = Arc::new(AtomicUsize::new(0));
    let counted = effects.clone();
    let effect = async move || {
        counted.fetch_add(1, Ordering::Relaxed);
        "done"
    };
    let router = Router::new()
        .route("/large", get(async || vec![b'x'; 100_000]))
        .route("/small", get(async || "small").post(async || "small"))
        .route("/endless", get(endless))
        .route("/effect", get(effect))
        .route("/nothing", get(async || StatusCode::NO_CONTENT));
    let limits = HttpLimits {
        max_in_flight: STREAMS * 3,
        write_timeout: Span(Duration::from_millis(500)),
        ..HttpLimits::default()
    };
    let (address, _stop) = start(router.merge(Health::new().router()), limits);
    let mut client = connect(address, 0).await;
    let mut bodies = Vec::new();
    for path in ["/large", "/small", "/endless"].into_iter().cycle().take(STREAMS * 3) {
        client = client.ready().await.unwrap();
        let response = client.send_request(get_request(path), true).unwrap().0.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        bodies.push(response.into_body());
    }
    // Beyond the bound of answers on their way there is none that has to be taken.
    client = client.ready().await.unwrap();
    let refused = client.send_request(get_request("/effect"), true).unwrap().0.await.unwrap();
    assert!(refused.status() == 503 && refused.headers().contains_key("retry-after"), "{refused:?}");
    assert!(refused.into_body().is_end_stream());
    assert_eq!(effects.load(Ordering::Relaxed), 0, "what is refused has taken no effect");
    for path in ["/nothing", "/readyz", "/small"] {
        let status = exchange(address, "GET", path).await.status;
        assert!(matches!(status, 200 | 204), "{path}: {status}");
    }
    // Health is in no bound, nor is the response to a write, which has taken effect.
    for request in [get_request("/readyz"), Request::post("http://localhost/small").body(()).unwrap()] {
        client = client.ready().await.unwrap();
        let response = client.send_request(request, true).unwrap().0.await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        bodies.push(response.into_body());
    }
    for mut body in bodies {
        let error = body.data().await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Some(h2::Reason::CANCEL), "{error:?}");
    }
    client = client.ready().await.unwrap();
    let next = client.send_request(get_request("/nothing"), true).unwrap().0.await.unwrap();
    assert_eq!(next.status(), StatusCode::NO_CONTENT);
}

/// A window that takes a part, even all but the last byte, does not take the answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_takes_a_part_of_its_answer_is_reset() {
    let router = Router::new().route("/", get(async || vec![b'x'; 20_000]));
    let limits = HttpLimits { write_timeout: Span(Duration::from_millis(500)), ..HttpLimits::default() };
    let (address, _stop) = start(router, limits);
    for window in [1, 16_384, 19_999] {
        let mut client = connect(address, window).await;
        let mut body = client.send_request(get_request("/"), true).unwrap().0.await.unwrap().into_body();
        let mut received = 0;
        let error = loop {
            match body.data().await.unwrap() {
                Ok(data) => received += data.len(),
                Err(error) => break error,
            }
        };
        assert_eq!((received, error.reason()), (window as usize, Some(h2::Reason::CANCEL)));
    }
    // With room for all of it the answer is whole.
    let mut client = connect(address, 20_000).await;
    let mut body = client.send_request(get_request("/"), true).unwrap().0.await.unwrap().into_body();
    let mut received = 0;
    while let Some(data) = body.data().await {
        received += data.unwrap().len();
    }
    assert_eq!(received, 20_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_answered_while_requests_fill_the_bound() {
    let (entered, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let hang = move || {
        entered.send(()).unwrap();
        std::future::pending::<()>()
    };
    let router = Router::new().route("/hang", get(hang)).merge(Health::new().router());
    let (address, _stop) = start(router, HttpLimits { max_in_flight: 1, ..HttpLimits::default() });
    let mut client = connect(address, 1 << 16).await;
    let _hanging = client.send_request(get_request("/hang"), true).unwrap();
    seen.recv().await.unwrap();
    assert_eq!(exchange(address, "GET", "/hang").await.status, 503);
    for path in ["/readyz", "/livez"] {
        assert_eq!(exchange(address, "GET", path).await.status, 200, "{path}");
    }
}
