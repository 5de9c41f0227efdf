//! Requests to the admin listener of another process.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const TIMEOUT: Duration = Duration::from_secs(1);
/// Ten times the metrics of a large process.
const MAX_BODY_BYTES: usize = 4 << 20;

/// The response to `GET path` with the header `key`; `None` if there is none within a second.
pub(super) async fn get(address: &str, path: &str, key: Option<HeaderValue>) -> Option<(StatusCode, String)> {
    tokio::time::timeout(TIMEOUT, send(address, path, key)).await.ok().flatten()
}

async fn send(address: &str, path: &str, key: Option<HeaderValue>) -> Option<(StatusCode, String)> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let mut request = Request::get(path).header(header::HOST, address).body(Body::empty()).ok()?;
    request.headers_mut().extend(key.map(|key| (header::AUTHORIZATION, key)));
    let response = sender.send_request(request).await.ok()?;
    let status = response.status();
    let body = axum::body::to_bytes(Body::new(response.into_body()), MAX_BODY_BYTES).await.ok();
    connection.abort();
    Some((status, String::from_utf8(body?.to_vec()).ok()?))
}
