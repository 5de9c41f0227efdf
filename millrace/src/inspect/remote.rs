//! Requests to a running process, over its admin listener.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use http_body_util::Full;
use millrace_service::auth::ApiKey;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{Line, TailRequest, TopicLine};
use crate::client::{Access, Connection, Request, Response, Target, reachable};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than the server waits for a log without progress.
const TAIL_TIMEOUT: Duration = Duration::from_mins(1);
/// Longest line of `tail`: a record has at most 1.25 MiB, and escapes can turn a byte into six characters.
const MAX_LINE: usize = 16 << 20;

/// The admin listener of a running process.
#[derive(Debug, Clone)]
pub(crate) struct Remote {
    address: SocketAddr,
    target: Target,
}

/// There is no running process, or its response is unusable.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// Nothing listens at the address.
    #[error("no process listens on the admin listener {0}")]
    NotRunning(SocketAddr),
    /// The listener does not respond like a process of Millrace.
    #[error("the admin listener {address}: {why}")]
    Response {
        /// The address.
        address: SocketAddr,
        /// The problem.
        why: String,
    },
}

impl Remote {
    /// The process with this admin listener, which needs a key unless it is on loopback.
    pub(crate) fn at(address: SocketAddr, key: Option<&ApiKey>) -> Self {
        let access = Access { key: key.map(ApiKey::bearer), ..Access::default() };
        Self { address: reachable(address), target: Target::of_listener(address, false, &access) }
    }

    /// Every topic with its offsets.
    pub(crate) async fn topics(&self) -> Result<Vec<TopicLine>, RemoteError> {
        self.fetch("/admin/topics", TIMEOUT).await
    }

    /// Status and body of a path, for `doctor`.
    pub(crate) async fn probe(&self, path: &str) -> Result<(u16, String), RemoteError> {
        let response = self.exchange(Method::GET, path, TIMEOUT).await?;
        Ok((response.status, String::from_utf8_lossy(&response.body).into_owned()))
    }

    /// Sends a GET and parses the JSON of a successful response.
    pub(crate) async fn fetch<T: DeserializeOwned>(&self, path: &str, within: Duration) -> Result<T, RemoteError> {
        let response = self.successful(self.exchange(Method::GET, path, within).await?)?;
        serde_json::from_slice(&response.body).map_err(|e| self.failed(e))
    }

    /// Sends a PUT and requires a successful response.
    pub(crate) async fn put(&self, path: &str) -> Result<(), RemoteError> {
        self.successful(self.exchange(Method::PUT, path, TIMEOUT).await?).map(drop)
    }

    /// Reads a topic; every record goes to `emit` until it returns `false`.
    pub(crate) async fn tail(
        &self,
        request: &TailRequest,
        mut emit: impl FnMut(Line) -> bool,
    ) -> Result<(), RemoteError> {
        let mut path =
            format!("/admin/tail?topic={}&from={}&follow={}", request.topic.name, request.from, request.follow);
        let numbers = [("max", request.max), ("partition", request.partition.map(u64::from))];
        for (name, value) in numbers.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            path.extend(["&", name, "=", &value.to_string()]);
        }
        let mut connection = self.connect().await?;
        let sent = connection.send(self.request(Method::GET, &path)?, TIMEOUT).await;
        let (head, mut body) = sent.map_err(|e| self.failed(e))?.into_parts();
        let mut pending = Vec::new();
        loop {
            let chunk = if request.follow {
                connection.chunk(&mut body).await
            } else {
                timeout(TAIL_TIMEOUT, connection.chunk(&mut body)).await.map_err(|e| self.failed(e))?
            };
            let Some(chunk) = chunk else { break };
            pending.extend_from_slice(&chunk.map_err(|e| self.failed(e))?);
            if head.status.is_success() && !self.emit_lines(&mut pending, &mut emit)? {
                return Ok(());
            }
            if pending.len() > MAX_LINE {
                return Err(self.failed(format_args!("a line exceeds {MAX_LINE} bytes")));
            }
        }
        self.successful(Response::new(head, pending.into())).map(drop)
    }

    /// Emits the complete lines; `false` once `emit` returns it.
    fn emit_lines(&self, pending: &mut Vec<u8>, emit: &mut impl FnMut(Line) -> bool) -> Result<bool, RemoteError> {
        let mut start = 0;
        while let Some(end) = pending[start..].iter().position(|&byte| byte == b'\n') {
            let line = &pending[start..start + end];
            start += end + 1;
            match serde_json::from_slice::<TailLine>(line).map_err(|e| self.failed(e))? {
                TailLine::Record(line) => {
                    if !emit(line) {
                        return Ok(false);
                    }
                }
                TailLine::Error { error } => return Err(self.failed(error)),
            }
        }
        pending.drain(..start);
        Ok(true)
    }

    /// The response, unless its status is an error.
    fn successful(&self, response: Response) -> Result<Response, RemoteError> {
        match response.status {
            200..=299 => Ok(response),
            _ => Err(self.failed(format_args!("status {}", response.summary()))),
        }
    }

    async fn exchange(&self, method: Method, path: &str, within: Duration) -> Result<Response, RemoteError> {
        let request = self.request(method, path)?;
        self.connect().await?.exchange(request, within).await.map_err(|e| self.failed(e))
    }

    async fn connect(&self) -> Result<Connection, RemoteError> {
        self.target.open(TIMEOUT).await.map_err(|_| RemoteError::NotRunning(self.address))
    }

    fn request(&self, method: Method, path: &str) -> Result<Request, RemoteError> {
        http::Request::builder().method(method).uri(path).body(Full::default()).map_err(|e| self.failed(e))
    }

    #[expect(clippy::needless_pass_by_value, reason = "used with map_err")]
    fn failed(&self, why: impl ToString) -> RemoteError {
        RemoteError::Response { address: self.address, why: why.to_string() }
    }
}

/// One line of the stream of `tail`.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub(super) enum TailLine {
    /// A record.
    Record(Line),
    /// Reading failed; the stream ends.
    Error {
        /// The reason.
        error: String,
    },
}
