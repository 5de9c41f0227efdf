//! One kept-alive connection. The task that sends a request also drives the connection: no other task is involved, so that a
//! load generator shares a small machine with what it measures.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST};
use http::{HeaderValue, Request as HttpRequest};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use millrace_service::net::{Socket, TlsClient};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Response;

/// A request; its URI is a path with a query. The connection adds the Host field.
pub(crate) type Request = HttpRequest<Full<Bytes>>;

/// Largest body of a response, unless set; that of a batch of 1,000 events is far smaller.
const MAX_BODY: usize = 4 << 20;

/// Why there is no response. The connection is of no further use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The connection closed before the request left this machine: nothing was processed.
    #[error("the connection is closed")]
    Unsent,
    /// No complete response in time.
    #[error("no response within {0:?}")]
    TimedOut(Duration),
    /// The connection closed before the end of the response.
    #[error("the response is incomplete: {0}")]
    Interrupted(#[source] hyper::Error),
    /// The body of the response exceeds the bound.
    #[error("the response exceeds {0} bytes")]
    TooLarge(usize),
}

/// A connection between two exchanges.
#[derive(Debug)]
pub(crate) struct Connection {
    sender: http1::SendRequest<Full<Bytes>>,
    driver: Driver,
    host: HeaderValue,
    /// The value of `Authorization`.
    key: Option<HeaderValue>,
    max_body: usize,
}

type Io = http1::Connection<TokioIo<Socket>, Full<Bytes>>;

/// The I/O of a connection; `None` once it has ended.
#[derive(Debug)]
struct Driver(Option<Pin<Box<Io>>>);

impl Connection {
    /// Connects to `host:port`, encrypted with `tls`.
    pub(crate) async fn open(authority: &str, tls: Option<&TlsClient>, within: Duration) -> std::io::Result<Self> {
        let stream = timeout(within, connect(authority, tls)).await??;
        let host = HeaderValue::try_from(authority).map_err(std::io::Error::other)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(std::io::Error::other)?;
        Ok(Self { sender, driver: Driver(Some(Box::pin(connection))), host, key: None, max_body: MAX_BODY })
    }

    /// Shows a key with each request.
    pub(crate) fn with_key(self, key: Option<HeaderValue>) -> Self {
        Self { key, ..self }
    }

    /// Bounds the body of a response.
    pub(crate) fn with_max_body(self, bytes: usize) -> Self {
        Self { max_body: bytes, ..self }
    }

    /// Sends a request and waits for the whole response.
    pub(crate) async fn exchange(&mut self, request: Request, within: Duration) -> Result<Response, ExchangeError> {
        let whole = async {
            let response = self.send_now(request).await?;
            let (head, mut body) = response.into_parts();
            let body = self.collect(&mut body).await?;
            // A connection that the server keeps alive is ready for the next request now.
            let _ = self.driver.run(self.sender.ready()).await;
            Ok(Response::new(head, body))
        };
        timeout(within, whole).await.unwrap_or(Err(ExchangeError::TimedOut(within)))
    }

    /// Sends a request and waits for the head of the response; [`Self::chunk`] reads the body.
    pub(crate) async fn send(
        &mut self,
        request: Request,
        within: Duration,
    ) -> Result<http::Response<Incoming>, ExchangeError> {
        timeout(within, self.send_now(request)).await.unwrap_or(Err(ExchangeError::TimedOut(within)))
    }

    /// The next piece of a body; `None` at its end.
    pub(crate) async fn chunk(&mut self, body: &mut Incoming) -> Option<Result<Bytes, ExchangeError>> {
        loop {
            match self.driver.run(body.frame()).await? {
                Ok(frame) => {
                    // A frame that is not data is a trailer.
                    if let Ok(data) = frame.into_data() {
                        return Some(Ok(data));
                    }
                }
                Err(error) => return Some(Err(ExchangeError::Interrupted(error))),
            }
        }
    }

    /// Whether the connection accepts another request.
    pub(crate) fn is_reusable(&self) -> bool {
        self.driver.0.is_some() && self.sender.is_ready()
    }

    async fn send_now(&mut self, mut request: Request) -> Result<http::Response<Incoming>, ExchangeError> {
        request.headers_mut().insert(HOST, self.host.clone());
        request.headers_mut().extend(self.key.clone().map(|key| (AUTHORIZATION, key)));
        let sent = self.driver.run(self.sender.try_send_request(request)).await;
        sent.map_err(|mut error| match error.take_message() {
            // The request came back: not even its head was written.
            Some(_) => ExchangeError::Unsent,
            None => ExchangeError::Interrupted(error.into_error()),
        })
    }

    async fn collect(&mut self, body: &mut Incoming) -> Result<Bytes, ExchangeError> {
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        let mut first = Bytes::new();
        let mut rest: Option<Vec<u8>> = None;
        while let Some(chunk) = self.chunk(body).await {
            let chunk = chunk?;
            let length = rest.as_ref().map_or(first.len(), Vec::len) + chunk.len();
            if length > self.max_body {
                return Err(ExchangeError::TooLarge(self.max_body));
            }
            match &mut rest {
                Some(rest) => rest.extend_from_slice(&chunk),
                None if first.is_empty() => first = chunk,
                None => rest = Some([&first[..], &chunk].concat()),
            }
            if body.is_end_stream() {
                break;
            }
        }
        Ok(rest.map_or(first, Bytes::from))
    }
}

async fn connect(authority: &str, tls: Option<&TlsClient>) -> std::io::Result<Socket> {
    let stream = TcpStream::connect(authority).await?;
    stream.set_nodelay(true)?;
    match tls {
        None => Ok(Socket::Plain(stream)),
        Some(tls) => tls.connect(authority.rsplit_once(':').map_or(authority, |(host, _)| host), stream).await,
    }
}

impl Driver {
    /// Runs work of this connection together with its I/O.
    async fn run<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            self.poll(cx);
            match work.as_mut().poll(cx) {
                Poll::Ready(done) => Poll::Ready(done),
                // The work may have made room or demand for I/O.
                Poll::Pending => {
                    self.poll(cx);
                    work.as_mut().poll(cx)
                }
            }
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        if self.0.as_mut().is_some_and(|connection| connection.as_mut().poll(cx).is_ready()) {
            self.0 = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    const WITHIN: Duration = Duration::from_secs(10);

    /// A server that sends these responses on each connection, then closes it.
    async fn server(responses: &'static [&'static str]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                for response in responses {
                    let mut request = [0; 1024];
                    let _ = stream.read(&mut request).await;
                    for bytes in response.as_bytes().chunks(7) {
                        let _ = stream.write_all(bytes).await;
                        tokio::task::yield_now().await;
                    }
                }
            }
        });
        authority
    }

    fn request() -> Request {
        Request::new(Full::default())
    }

    #[tokio::test]
    async fn reads_one_response_after_the_other() {
        let authority = server(&[
            "HTTP/1.1 204 No Content\r\nMillrace-Position: e/0@1\r\n\r\n",
            "HTTP/1.1 503 Service Unavailable\r\nretry-after: 2\r\nContent-Length: 2\r\n\r\n{}",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx",
        ])
        .await;
        let mut connection = Connection::open(&authority, None, WITHIN).await.unwrap();
        for (status, retry_after, body, reusable) in
            [(204, None, "", true), (503, Some(2), "{}", true), (200, None, "abc", true), (200, None, "x", false)]
        {
            let response = connection.exchange(request(), WITHIN).await.unwrap();
            assert_eq!((response.status, response.retry_after), (status, retry_after.map(Duration::from_secs)));
            assert_eq!((response.body, connection.is_reusable()), (Bytes::from(body), reusable));
        }
        assert!(matches!(connection.exchange(request(), WITHIN).await, Err(ExchangeError::Unsent)));
    }

    #[tokio::test]
    async fn a_request_without_a_whole_response_may_have_been_processed() {
        for responses in
            [&[""][..], &["HTTP/1.1 20"], &["nonsense\r\n\r\n"], &["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"]]
        {
            let authority = server(responses).await;
            let mut connection = Connection::open(&authority, None, WITHIN).await.unwrap();
            let error = connection.exchange(request(), WITHIN).await.unwrap_err();
            assert!(matches!(error, ExchangeError::Interrupted(_)), "{responses:?}: {error}");
            assert!(!connection.is_reusable());
        }
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
        assert!(Connection::open(&closed, None, WITHIN).await.is_err());
    }

    #[tokio::test]
    async fn bounds_the_time_and_the_body_of_a_response() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent = listener.local_addr().unwrap().to_string();
        let mut connection = Connection::open(&silent, None, WITHIN).await.unwrap();
        let error = connection.exchange(request(), Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, ExchangeError::TimedOut(_)), "{error}");
        let large = server(&["HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"]).await;
        let mut connection = Connection::open(&large, None, WITHIN).await.unwrap().with_max_body(2);
        let error = connection.exchange(request(), WITHIN).await.unwrap_err();
        assert!(matches!(error, ExchangeError::TooLarge(2)), "{error}");
    }
}
