//! The bare server: axum as in its documentation, with a route for each thing that is compared.

use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use tokio::net::TcpListener;

const PUBLISHED: &str = concat!(
    r#"{"duplicate":false,"id":"01a22a0f63e3776b865dd4a8009c3c40","offset":1,"partition":0,"#,
    r#""published_at":"2026-11-30T01:26:21.411Z","topic":"bench-0"}"#,
);

/// Serves until the process is killed.
pub(crate) async fn serve(listen: SocketAddr, body: String) -> anyhow::Result<()> {
    // Static text, so that no response copies it.
    let body: &'static str = body.leak();
    let get = move || async move { ([(CONTENT_TYPE, "text/plain; charset=utf-8")], body) };
    // It reads the message, and answers as a publish is answered, without an id, a time or an offset to make.
    let published = async |_: Bytes| (StatusCode::CREATED, [(CONTENT_TYPE, "application/json")], PUBLISHED);
    let router = Router::new()
        .route("/analytics", post(async || StatusCode::NO_CONTENT).get(get))
        .route("/v1/topics/{topic}/messages", post(published));
    axum::serve(TcpListener::bind(listen).await?, router).await?;
    Ok(())
}
