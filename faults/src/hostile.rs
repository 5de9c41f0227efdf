//! Clients that mean harm, all at once: they take streams, connections and memory, and read nothing.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use h2::client::Builder;
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Between two attempts of a client, and between two pieces of what it sends slowly.
const PAUSE: Duration = Duration::from_millis(500);
/// Between two streams that a client resets.
const BETWEEN_RESETS: Duration = Duration::from_millis(1);
/// Streams of a connection: as many as a server allows.
const STREAMS: usize = 100;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// Running clients. Dropping this ends them.
pub(crate) struct Hostile {
    clients: Runtime,
    /// Streams that the server ended.
    ended: Arc<AtomicU64>,
}

/// A request on each stream of a connection whose client takes no byte of a response.
#[derive(Clone, Copy)]
struct Unread {
    target: &'static str,
    coding: &'static str,
    /// The begin of a body that does not end.
    body: Option<&'static [u8]>,
}

impl Hostile {
    /// Starts all clients against the listeners of a command and a query service.
    ///
    /// # Errors
    /// If there is no runtime for them.
    pub(crate) fn start(command: SocketAddr, query: SocketAddr) -> Result<Self, String> {
        let hostile = Self { clients: Runtime::new().map_err(|error| error.to_string())?, ended: Arc::default() };
        let get = |target, coding| Unread { target, coding, body: None };
        let begun = Unread { body: Some(b"\x1f\x8b\x08\0\0\0\0\0\0\x03"), ..get("/analytics/batch", "gzip") };
        for (number, address, unread) in [
            (41, command, get("/openapi.json", "identity")),
            (41, query, get("/analytics?timestamp=0", "identity")),
            (5, query, get("/analytics/range?from=0&to=2678400000", "br")),
            (20, command, begun),
        ] {
            let ended = Arc::clone(&hostile.ended);
            hostile.spawn(number, move || unread.send(address, Arc::clone(&ended)));
        }
        for address in [command, query] {
            hostile.spawn(100, move || slow_head(address));
            hostile.spawn(500, move || idle(address));
            hostile.spawn(2, move || rubbish(address));
            hostile.spawn(2, move || resets(address));
        }
        Ok(hostile)
    }

    /// Streams that the server ended although nobody read their responses.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    /// Starts clients that begin again whenever the server ends them.
    fn spawn<F>(&self, number: usize, client: impl Fn() -> F + Clone + Send + 'static)
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        for _ in 0..number {
            let client = client.clone();
            self.clients.spawn(async move {
                loop {
                    let _ = client().await;
                    sleep(PAUSE).await;
                }
            });
        }
    }
}

impl Unread {
    /// Sends the request on every stream, and waits until the server ends them all.
    async fn send(self, address: SocketAddr, ended: Arc<AtomicU64>) -> Outcome {
        let stream = TcpStream::connect(address).await?;
        let (mut client, connection) =
            Builder::new().initial_window_size(0).handshake::<_, &'static [u8]>(stream).await?;
        // Answers the server's PINGs; ends with this client.
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { drop(connection.await) });
        let mut open = Vec::new();
        for _ in 0..STREAMS {
            let method = if self.body.is_some() { "POST" } else { "GET" };
            let request = Request::builder().method(method).uri(format!("http://{address}{}", self.target));
            let request = match self.body {
                Some(_) => request.header("content-type", "application/json").header("content-encoding", self.coding),
                None => request.header("accept-encoding", self.coding),
            };
            client = client.ready().await?;
            let (response, mut body) = client.send_request(request.body(())?, self.body.is_none())?;
            if let Some(begin) = self.body {
                body.send_data(begin, false)?;
            }
            open.push((response, body));
        }
        for (response, _) in open {
            let Ok(response) = response.await else { continue };
            let mut body = response.into_body();
            while let Some(Ok(_)) = body.data().await {}
            ended.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A byte of a head now and then.
async fn slow_head(address: SocketAddr) -> Outcome {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET /analytics?timestamp=0 HTTP/1.1\r\nHost: ").await?;
    loop {
        sleep(PAUSE).await;
        stream.write_all(b"x").await?;
    }
}

/// Nothing at all.
async fn idle(address: SocketAddr) -> Outcome {
    let mut stream = TcpStream::connect(address).await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// Bytes of no protocol.
async fn rubbish(address: SocketAddr) -> Outcome {
    for length in 1..200 {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&(0..length).map(|i: u8| i.wrapping_mul(73)).collect::<Vec<_>>()).await?;
        stream.shutdown().await?;
        stream.read_to_end(&mut Vec::new()).await?;
    }
    Ok(())
}

/// Requests that are reset as soon as they are sent.
async fn resets(address: SocketAddr) -> Outcome {
    let (mut client, connection) = h2::client::handshake(TcpStream::connect(address).await?).await?;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(connection.await) });
    // The client queues what the connection has yet to send, without a bound.
    loop {
        sleep(BETWEEN_RESETS).await;
        client = client.ready().await?;
        let request = Request::get(format!("http://{address}/analytics?timestamp=0")).body(())?;
        let (_, mut stream) = client.send_request(request, false)?;
        stream.send_reset(h2::Reason::CANCEL);
    }
}
