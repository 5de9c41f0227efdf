//! Binding of addresses, with errors that name the setting to change.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

/// An address that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {}", reason(.source))]
pub struct BindError {
    key: String,
    address: SocketAddr,
    source: io::Error,
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another process uses the address; choose another port".into(),
        io::ErrorKind::AddrNotAvailable => "the address does not belong to this machine".into(),
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege".into(),
        _ => error.to_string(),
    }
}

/// A bound address that does not listen yet: connections are refused, instead of waiting, until the service behind it
/// has started.
#[derive(Debug)]
pub struct Reserved {
    socket: TcpSocket,
    key: String,
    address: SocketAddr,
}

/// Connections that the kernel queues for the accept loop.
const BACKLOG: u32 = 4_096;

/// Binds `address`, the value of the setting `key`.
///
/// # Errors
/// Names the setting, the address and what to do.
pub fn reserve(key: &str, address: SocketAddr) -> Result<Reserved, BindError> {
    let bind = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Connections of the previous process may linger on the port.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    };
    match bind() {
        Ok(socket) => Ok(Reserved { socket, key: key.to_owned(), address }),
        Err(source) => Err(BindError { key: key.to_owned(), address, source }),
    }
}

impl Reserved {
    /// Listens on the address.
    ///
    /// # Errors
    /// As [`reserve`].
    pub fn listen(self) -> Result<TcpListener, BindError> {
        let Self { socket, key, address } = self;
        socket.listen(BACKLOG).map_err(|source| BindError { key, address, source })
    }
}
