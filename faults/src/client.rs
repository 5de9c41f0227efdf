//! The load's HTTP client, which separates what certainly did not happen from what may have happened.

use std::net::SocketAddr;
use std::time::Duration;

use millrace_testkit::{Connection, request};

/// How one request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// No connection: nothing was sent.
    NotSent,
    /// The request may have arrived: there is no response, or a part of one.
    Unknown,
    /// A complete response.
    Response {
        /// The status.
        status: u16,
        /// Retry-After in seconds.
        retry_after: Option<u64>,
        /// The body.
        body: String,
    },
}

/// A client that connects when it must and reuses its connection while that works.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    timeout: Duration,
    connection: Option<Connection>,
}

impl Client {
    /// Requests go to `address`; none waits longer than `timeout`.
    pub fn new(address: SocketAddr, timeout: Duration) -> Self {
        Self { address, timeout, connection: None }
    }

    /// Sends a request without a body and waits for its response.
    pub fn send(&mut self, method: &str, target: &str) -> Attempt {
        self.send_with(method, target, &[], "")
    }

    /// Sends a request with further headers and a body, and waits for its response.
    pub fn send_with(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Attempt {
        let opened = self.connection.take().map_or_else(|| Connection::open(self.address, self.timeout), Ok);
        let Ok(mut connection) = opened else { return Attempt::NotSent };
        let host = self.address.to_string();
        let headers = [&[("host", host.as_str())], headers].concat();
        // The server may close a reused connection while the request is under way: no response is an unknown outcome.
        let Ok(response) = connection.exchange(request(method, target, &headers, body)) else {
            return Attempt::Unknown;
        };
        if !response.is_last() {
            self.connection = Some(connection);
        }
        let retry_after = response.header("retry-after").and_then(|value| value.parse().ok());
        Attempt::Response { status: response.status, retry_after, body: response.into_text() }
    }
}
