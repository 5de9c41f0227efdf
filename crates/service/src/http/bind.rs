//! Listening, with an error that says which setting to change.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpSocket};

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

/// An address that is ours but not listened on yet: clients are refused, not kept waiting, until the service behind it is
/// there.
#[derive(Debug)]
pub struct Reserved {
    socket: TcpSocket,
    key: String,
    address: SocketAddr,
}

/// Connections the kernel keeps for the accept loop.
const BACKLOG: u32 = 4_096;

/// Takes `address`, which the setting `key` names.
///
/// # Errors
/// Names the setting, the address and what can be done.
pub fn reserve(key: &str, address: SocketAddr) -> Result<Reserved, BindError> {
    let socket = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // Connections of the process before us may linger on the port.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    };
    match socket() {
        Ok(socket) => Ok(Reserved { socket, key: key.to_owned(), address }),
        Err(source) => Err(BindError { key: key.to_owned(), address, source }),
    }
}

impl Reserved {
    /// Listens.
    ///
    /// # Errors
    /// As [`reserve`].
    pub fn listen(self) -> Result<TcpListener, BindError> {
        let Self { socket, key, address } = self;
        socket.listen(BACKLOG).map_err(|source| BindError { key, address, source })
    }
}
