//! Asks a running process, over its admin listener.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Line, TailRequest, TopicLine};

const WITHIN: Duration = Duration::from_secs(10);
/// Nothing that is asked for whole is larger.
const MAX_BODY: usize = 4 << 20;
/// No line of `tail` is longer: a record has at most 1.25 MiB, and escapes can make six characters of a byte.
const MAX_LINE: usize = 16 << 20;

/// The admin listener of a running process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remote {
    address: SocketAddr,
}

/// A running process was not there, or gave no usable answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    /// Nothing listens there.
    #[error("no process answers on the admin listener {0}")]
    NotRunning(SocketAddr),
    /// Something listens, and does not answer as a process of ours does.
    #[error("the admin listener {address}: {why}")]
    Answer {
        /// Where.
        address: SocketAddr,
        /// What it did.
        why: String,
    },
}

impl Remote {
    /// The process with this admin address. One that listens on every address is asked on loopback.
    pub(crate) fn at(mut address: SocketAddr) -> Self {
        if address.ip().is_unspecified() {
            address.set_ip(match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            });
        }
        Self { address }
    }

    /// Every topic as it stands.
    pub(crate) async fn topics(&self) -> Result<Vec<TopicLine>, RemoteError> {
        self.ask(http::Method::GET, "/admin/topics", WITHIN).await
    }

    /// Status and body of a path, for `doctor`.
    pub(crate) async fn probe(&self, path: &str) -> Result<(u16, String), RemoteError> {
        let response = self.send(http::Method::GET, path, WITHIN).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY).collect();
        let body = timeout(WITHIN, body).await.map_err(|e| self.failed(e))?.map_err(|e| self.failed(e))?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    }

    /// Reads a topic; every record goes to `emit` until it wants no more.
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
        let mut body = self.get(&path).await?.into_body();
        let mut pending = Vec::new();
        loop {
            let frame = if request.follow {
                body.frame().await
            } else {
                // The server's own patience with a stuck log is shorter than this.
                timeout(WITHIN * 6, body.frame()).await.map_err(|e| self.failed(e))?
            };
            let Some(frame) = frame else { break };
            let Ok(data) = frame.map_err(|e| self.failed(e))?.into_data() else { continue };
            pending.extend_from_slice(&data);
            let mut start = 0;
            while let Some(end) = pending[start..].iter().position(|&byte| byte == b'\n') {
                let line = &pending[start..start + end];
                start += end + 1;
                match serde_json::from_slice::<TailLine>(line).map_err(|e| self.failed(e))? {
                    TailLine::Record(line) => {
                        if !emit(line) {
                            return Ok(());
                        }
                    }
                    TailLine::Error { error } => return Err(self.failed(error)),
                }
            }
            pending.drain(..start);
            if pending.len() > MAX_LINE {
                return Err(self.failed("a line without an end"));
            }
        }
        Ok(())
    }

    /// Asks for something whole, as JSON.
    pub(crate) async fn ask<T: DeserializeOwned>(
        &self,
        method: http::Method,
        path: &str,
        within: Duration,
    ) -> Result<T, RemoteError> {
        let response = self.done(self.send(method, path, within).await?).await?;
        let body = Limited::new(response.into_body(), MAX_BODY).collect();
        let body = timeout(WITHIN, body).await.map_err(|e| self.failed(e))?.map_err(|e| self.failed(e))?;
        serde_json::from_slice(&body.to_bytes()).map_err(|e| self.failed(e))
    }

    /// Has something done.
    pub(crate) async fn tell(&self, method: http::Method, path: &str, within: Duration) -> Result<(), RemoteError> {
        self.done(self.send(method, path, within).await?).await.map(|_| ())
    }

    async fn get(&self, path: &str) -> Result<http::Response<Incoming>, RemoteError> {
        self.done(self.send(http::Method::GET, path, WITHIN).await?).await
    }

    /// The response, unless it is a problem.
    async fn done(&self, response: http::Response<Incoming>) -> Result<http::Response<Incoming>, RemoteError> {
        match response.status() {
            status if status.is_success() => Ok(response),
            status => {
                let body = timeout(WITHIN, Limited::new(response.into_body(), MAX_BODY).collect()).await;
                let body = body.ok().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
                let detail: Option<Problem> = serde_json::from_slice(&body).ok();
                Err(self.failed(detail.map_or_else(|| format!("answered {status}"), |problem| problem.detail)))
            }
        }
    }

    async fn send(
        &self,
        method: http::Method,
        path: &str,
        within: Duration,
    ) -> Result<http::Response<Incoming>, RemoteError> {
        let stream = timeout(WITHIN, TcpStream::connect(self.address)).await.map_err(|e| self.failed(e))?;
        let stream = stream.map_err(|_| RemoteError::NotRunning(self.address))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| self.failed(e))?;
        // Ends with the response's body, or when this process does.
        tokio::spawn(connection);
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(http::header::HOST, self.address.to_string())
            .body(Empty::<Bytes>::new())
            .map_err(|e| self.failed(e))?;
        timeout(within, sender.send_request(request)).await.map_err(|e| self.failed(e))?.map_err(|e| self.failed(e))
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is made for map_err")]
    fn failed(&self, why: impl ToString) -> RemoteError {
        RemoteError::Answer { address: self.address, why: why.to_string() }
    }
}

/// One line of the stream of `tail`.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub(super) enum TailLine {
    /// A record.
    Record(Line),
    /// Reading failed; nothing follows.
    Error {
        /// Why.
        error: String,
    },
}

#[derive(serde::Deserialize)]
struct Problem {
    detail: String,
}
