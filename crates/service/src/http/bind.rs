//! Listening, with an error that says which setting to change.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpListener;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {}", reason(.source))]
pub struct BindError {
    key: String,
    address: SocketAddr,
    source: io::Error,
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the address is taken by another process; choose another port".into(),
        io::ErrorKind::AddrNotAvailable => "the address does not belong to this machine".into(),
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege".into(),
        _ => error.to_string(),
    }
}

/// Listens on `address`, which the setting `key` names.
///
/// # Errors
/// Names the setting, the address and what can be done.
pub async fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { key: key.to_owned(), address, source })
}
