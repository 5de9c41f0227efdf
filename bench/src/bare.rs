//! The bare server: axum as in its documentation, with one route.

use std::net::SocketAddr;

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use tokio::net::TcpListener;

/// Serves until the process is killed.
pub(crate) async fn serve(listen: SocketAddr, body: String) -> anyhow::Result<()> {
    // Static text, so that no response copies it.
    let body: &'static str = body.leak();
    let get = move || async move { ([(CONTENT_TYPE, "text/plain; charset=utf-8")], body) };
    let router = Router::new().route("/analytics", post(async || StatusCode::NO_CONTENT).get(get));
    axum::serve(TcpListener::bind(listen).await?, router).await?;
    Ok(())
}
