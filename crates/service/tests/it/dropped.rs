//! Clients that leave, and clients that only close their side.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use futures::StreamExt as _;
use millrace_base::Span;
use millrace_service::health::Health;
use millrace_service::http::{Endless, Hosts, HttpLimits, serve_encrypted};
use millrace_service::net::{Tls, TlsConfig};
use millrace_testkit::request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::http2::get_request;
use crate::server::start;
use crate::tls::{client, encrypted, renew};

/// No timeout ends a connection within the test.
fn patient() -> HttpLimits {
    let hour = Span(Duration::from_hours(1));
    HttpLimits { idle_timeout: hour, write_timeout: hour, handler_timeout: hour, ..HttpLimits::default() }
}

/// One answer of a line and no end; the receiver learns of the end of its body.
fn endless() -> (Router, mpsc::Receiver<()>) {
    let (held, ended) = mpsc::channel(1);
    let held = Arc::new(Mutex::new(Some(held)));
    let answer = move || -> Response {
        let held = held.lock().unwrap().take();
        let line = futures::stream::iter([Ok::<_, std::io::Error>("first\n")]);
        let body = line.chain(futures::stream::pending()).inspect(move |_| assert!(held.is_some()));
        let mut response = Body::from_stream(body).into_response();
        response.extensions_mut().insert(Endless);
        response
    };
    (Router::new().route("/", get(move || std::future::ready(answer()))), ended)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endless_answer_ends_when_its_client_leaves() {
    let (router, mut ended) = endless();
    let (address, _stop) = start(router, patient());
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&request("GET", "/", &[], "")).await.unwrap();
    let mut received = Vec::new();
    while !received.ends_with(b"first\n\r\n") {
        assert!(stream.read_buf(&mut received).await.unwrap() > 0);
    }
    drop(stream);
    assert_eq!(ended.recv().await, None);

    let (router, mut ended) = endless();
    let (address, _stop) = start(router, patient());
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut client, connection) = h2::client::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let mut body = client.send_request(get_request("/"), true).unwrap().0.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "first\n");
    connection.abort();
    assert_eq!(ended.recv().await, None);
}

/// The farewell of TLS is a record, which arrives before the end of the connection and looks like any other.
#[tokio::test(flavor = "multi_thread")]
async fn an_encrypted_endless_answer_ends_when_its_client_leaves() {
    for farewell in [true, false] {
        let directory = tempfile::tempdir().unwrap();
        let certificate = renew(directory.path());
        let file = |name| directory.path().join(name);
        let config =
            TlsConfig { certificate_file: file("cert.pem"), key_file: file("key.pem"), ..TlsConfig::default() };
        let stop = CancellationToken::new();
        let tls = Tls::start(&config, &Health::new(), stop.clone()).unwrap();
        let (router, mut ended) = endless();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve_encrypted(listener, router, patient(), Hosts::Any, tls, stop));
        let connector = client(&[certificate], rustls::ALL_VERSIONS, &["http/1.1"]);
        let mut stream = encrypted(&connector, TcpStream::connect(address).await.unwrap()).await.unwrap();
        stream.write_all(&request("GET", "/", &[], "")).await.unwrap();
        stream.flush().await.unwrap();
        let mut received = Vec::new();
        while !received.ends_with(b"first\n\r\n") {
            assert!(stream.read_buf(&mut received).await.unwrap() > 0);
        }
        // With a farewell the socket stays open: nothing else ends the answer.
        let left = if farewell {
            stream.shutdown().await.unwrap();
            Some(stream)
        } else {
            drop(stream);
            None
        };
        assert_eq!(ended.recv().await, None);
        drop(left);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_closes_its_side_gets_an_answer_that_ends() {
    let (entered, mut seen) = mpsc::channel::<()>(1);
    let (release, released) = tokio::sync::watch::channel(false);
    let handler = move |body: Bytes| {
        let (entered, mut released) = (entered.clone(), released.clone());
        async move {
            entered.send(()).await.unwrap();
            released.wait_for(|&released| released).await.unwrap();
            body
        }
    };
    let (address, _stop) = start(Router::new().route("/", post(handler)), patient());
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&request("POST", "/", &[], "body")).await.unwrap();
    stream.shutdown().await.unwrap();
    seen.recv().await.unwrap();
    release.send(true).unwrap();
    let mut received = String::new();
    // To the end: the server closes, too.
    stream.read_to_string(&mut received).await.unwrap();
    assert!(received.starts_with("HTTP/1.1 200") && received.ends_with("\r\n\r\nbody"), "{received}");
}
