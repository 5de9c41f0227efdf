//! A look at another process's admin listener.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

const WITHIN: Duration = Duration::from_secs(1);
/// A text of metrics is a tenth of this.
const MOST_BYTES: usize = 4 << 20;

/// What `GET path` is answered there, within a second; `None` when it is not.
pub(super) async fn get(address: &str, path: &str) -> Option<(StatusCode, String)> {
    tokio::time::timeout(WITHIN, ask(address, path)).await.ok().flatten()
}

async fn ask(address: &str, path: &str) -> Option<(StatusCode, String)> {
    let stream = TcpStream::connect(address).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    let connection = tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, address).body(Body::empty()).ok()?;
    let answer = sender.send_request(request).await.ok()?;
    let status = answer.status();
    let body = axum::body::to_bytes(Body::new(answer.into_body()), MOST_BYTES).await.ok();
    connection.abort();
    Some((status, String::from_utf8(body?.to_vec()).ok()?))
}
