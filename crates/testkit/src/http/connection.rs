//! Blocking connections.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::request::request;
use super::response::{Response, take};
use crate::authority::TlsStream;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A blocking connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Connection {
    /// Connects; neither this nor any later read or write waits longer than `timeout`.
    ///
    /// # Errors
    /// If the server does not accept the connection.
    pub fn open(address: SocketAddr, timeout: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// If the connection is closed, or does not accept the bytes in time.
    pub fn write_all(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    /// Sends a request and reads its final response. After an error, whether the server processed the request is
    /// unknown, and the connection is of no further use.
    ///
    /// # Errors
    /// If there is no response in time, a part of one, or one that is not HTTP.
    pub fn exchange(&mut self, request: impl AsRef<[u8]>) -> io::Result<Response> {
        exchange(&mut self.stream, &mut self.received, request.as_ref())
    }
}

fn exchange(stream: &mut (impl Read + Write), received: &mut Vec<u8>, request: &[u8]) -> io::Result<Response> {
    let head_only = request.starts_with(b"HEAD ");
    stream.write_all(request)?;
    let mut piece = [0; 16 << 10];
    loop {
        if let Some(response) = take(received, head_only, false)? {
            return Ok(response);
        }
        match stream.read(&mut piece)? {
            0 => return take(received, head_only, true)?.ok_or(io::ErrorKind::UnexpectedEof.into()),
            read => received.extend_from_slice(&piece[..read]),
        }
    }
}

/// `GET target` (path and query) on a connection of its own.
///
/// # Errors
/// If there is no connection, no response within ten seconds, a part of one, or one that is not HTTP.
pub fn http_get(address: SocketAddr, target: &str) -> io::Result<Response> {
    http(address, "GET", target, &[], "")
}

/// Any request with any headers and body, on a connection of its own.
///
/// # Errors
/// As [`http_get`].
pub fn http(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Response> {
    let host = address.to_string();
    let headers = [&[("host", host.as_str()), ("connection", "close")], headers].concat();
    Connection::open(address, TIMEOUT)?.exchange(request(method, target, &headers, body))
}

/// As [`http`], on an encrypted connection, which may go on.
///
/// # Errors
/// As [`http_get`].
pub fn https(
    stream: &mut TlsStream,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<Response> {
    exchange(stream, &mut Vec::new(), &request(method, target, headers, body))
}
