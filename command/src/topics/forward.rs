//! Brings calls to coordinators in other processes: who coordinates a partition stands in `topics.owners`.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::uri::Scheme;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use millrace_base::Backoff;
use millrace_contracts::topics::{
    CALLS_PATH, Call, CallError, Coordinate, Reply, Request as TopicRequest, TopicOwner, decode_reply, encode_call,
};
use millrace_contracts::{Code, Refusal, Topic};
use millrace_log::{Batch, Limits, Log, LogError, PollOutcome};
use millrace_service::auth::Authenticator;
use millrace_service::net::is_loopback;
use rustls::ClientConfig;
use tokio_util::sync::CancellationToken;
use tower::Service;
use tower::util::MapFuture;

/// Longest wait for a TCP connection.
const TCP_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest wait for a connection that a call can be sent on: name, TCP and TLS together. A machine whose kernel accepts connections
/// and whose process hangs ends no handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest answer: a page of a pull with its envelopes.
const MAX_ANSWER: usize = 64 << 20;
/// Longest call, beside the wait of a long poll.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longest wait for an endpoint's answer to a sample.
const SAMPLE: Duration = Duration::from_secs(30);
/// A connection with calls under way is tested, and closed if nothing answers: to a machine that is gone it would take every call
/// for as long as the kernel repeats its bytes, although the name has a new address by then.
const PING_AFTER: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two warnings about calls that failed.
const WARNING_INTERVAL: Duration = Duration::from_secs(10);
const LIMITS: Limits = Limits { records: 1_024, bytes: 1 << 20, wait: Duration::from_millis(200) };

/// A connection that is being made.
type Connecting = <HttpsConnector<HttpConnector> as Service<Uri>>::Future;
type Connector = MapFuture<HttpsConnector<HttpConnector>, fn(Connecting) -> Connecting>;

/// Calls this process's coordinators first, then those of others.
pub struct Forwarder {
    local: Option<Arc<dyn Coordinate>>,
    owners: Arc<RwLock<HashMap<u32, TopicOwner>>>,
    client: Client<Connector, Full<Bytes>>,
    auth: Authenticator,
    allow_clear_key: bool,
    /// When a call that failed was last a warning.
    warned: Mutex<Option<Instant>>,
}

impl Forwarder {
    /// A forwarder that follows `topics.owners` on a thread of its own until `stop`. `tls` has the authorities that coordinators
    /// with an https URL are trusted by; `allow_clear_key`: the key of this process may go to an http URL of another machine, since
    /// something else encrypts.
    ///
    /// # Errors
    /// No thread can be had.
    pub fn start(
        log: Log,
        local: Option<Arc<dyn Coordinate>>,
        auth: Authenticator,
        tls: ClientConfig,
        allow_clear_key: bool,
        stop: CancellationToken,
    ) -> io::Result<Self> {
        let owners = Arc::new(RwLock::new(HashMap::new()));
        let followed = owners.clone();
        std::thread::Builder::new().name("owners".into()).spawn(move || follow(&log, &followed, &stop))?;
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(TCP_TIMEOUT));
        connector.set_nodelay(true);
        connector.enforce_http(false);
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http2();
        let bounded: fn(Connecting) -> Connecting = |connecting| within(CONNECT_TIMEOUT, connecting);
        let connector = MapFuture::new(builder.wrap_connector(connector), bounded);
        let client = Client::builder(TokioExecutor::new())
            .http2_only(true)
            .timer(TokioTimer::new())
            .http2_keep_alive_interval(PING_AFTER)
            .http2_keep_alive_timeout(PING_TIMEOUT)
            .build(connector);
        Ok(Self { local, owners, client, auth, allow_clear_key, warned: Mutex::new(None) })
    }

    async fn bring(&self, call: Call) -> Result<Reply, CallError> {
        if let Some(local) = &self.local {
            match local.call(call.clone()).await {
                Err(CallError::Elsewhere) => {}
                reply => return reply,
            }
        }
        let url = {
            let owners = self.owners.read().expect("nothing panics while it is held");
            owners.get(&call.partition).map(|owner| owner.url.clone())
        };
        let Some(url) = url.filter(|url| !url.is_empty()) else { return Err(CallError::Elsewhere) };
        let key = self.auth.outgoing();
        if key.is_some() && !self.allow_clear_key && crosses_a_network_in_clear(&url) {
            self.report(&url, "it is not encrypted, so everybody on the way could read the key, which was not sent");
            return Err(CallError::Elsewhere);
        }
        let waits = match &call.request {
            TopicRequest::Pull(pull) => Duration::from_millis(pull.wait_ms),
            TopicRequest::Sample(_) => SAMPLE,
            _ => Duration::ZERO,
        };
        let body = encode_call(&call).map_err(|error| failed(&error))?;
        let request = Request::builder().method(Method::POST).uri(format!("{url}{CALLS_PATH}"));
        let mut request = request.body(Full::new(Bytes::from(body))).map_err(|error| failed(&error))?;
        request.headers_mut().extend(key.map(|key| (AUTHORIZATION, key)));
        let exchange = async {
            // A connection that cannot be made changes nothing, so another coordinator may be looked up.
            let response = self.client.request(request).await.map_err(|error| {
                self.report(&url, &with_causes(&error));
                if error.is_connect() { CallError::Elsewhere } else { CallError::Refused(unknown()) }
            })?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| failed(&error))?.to_bytes();
            if status != StatusCode::OK {
                self.report(&url, &format!("its listener answers {status}"));
                return Err(CallError::Elsewhere);
            }
            decode_reply(&body).map_err(|error| failed(&error))?
        };
        tokio::time::timeout(PATIENCE + waits, exchange).await.unwrap_or_else(|_| Err(CallError::Refused(unknown())))
    }

    /// Logs why a coordinator did not take a call: as a warning every now and then, since each request may be why.
    fn report(&self, url: &str, problem: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_some_and(|at| at.elapsed() < WARNING_INTERVAL) {
            tracing::debug!(url, problem, "cannot call a coordinator");
        } else {
            *warned = Some(Instant::now());
            tracing::warn!(url, problem, "cannot call a coordinator");
        }
    }
}

impl Coordinate for Forwarder {
    fn call(&self, call: Call) -> Pin<Box<dyn Future<Output = Result<Reply, CallError>> + Send + '_>> {
        Box::pin(self.bring(call))
    }
}

/// A connection that is made within a time, or not at all.
fn within(limit: Duration, connecting: Connecting) -> Connecting {
    Box::pin(async move {
        tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| {
            let problem = format!("no connection within {limit:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, problem).into())
        })
    })
}

/// Whether others could read what is sent to a URL: it is neither encrypted nor of this machine.
fn crosses_a_network_in_clear(url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return true };
    url.scheme() != Some(&Scheme::HTTPS) && !is_loopback(url.host().unwrap_or_default())
}

/// The text of an error and of its causes: that a certificate is not trusted is one.
fn with_causes(error: &dyn Error) -> String {
    std::iter::successors(error.source(), |&cause| cause.source())
        .fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn unknown() -> Refusal {
    Refusal::new(Code::OutcomeUnknown, "the coordinator did not answer; the change may or may not take effect")
}

fn failed(error: &dyn std::fmt::Display) -> CallError {
    tracing::warn!(%error, "a call to a coordinator failed");
    CallError::Refused(unknown())
}

/// Keeps the owners of all partitions up to date.
fn follow(log: &Log, owners: &RwLock<HashMap<u32, TopicOwner>>, stop: &CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    while !stop.is_cancelled() {
        if let Err(error) = follow_until_failed(log, owners, stop) {
            tracing::debug!(%error, "cannot follow the owners of topics, trying again");
            std::thread::sleep(backoff.next_pause());
        }
    }
}

fn follow_until_failed(
    log: &Log,
    owners: &RwLock<HashMap<u32, TopicOwner>>,
    stop: &CancellationToken,
) -> Result<(), LogError> {
    let from: Vec<(u32, u64)> = (0..log.partitions(Topic::TOPIC_OWNERS)).map(|partition| (partition, 0)).collect();
    let mut reader = log.reader(Topic::TOPIC_OWNERS, &from)?;
    let mut batch = Batch::default();
    while !stop.is_cancelled() {
        if reader.poll(&mut batch, LIMITS)? != PollOutcome::Records {
            continue;
        }
        let mut owners = owners.write().expect("nothing panics while it is held");
        for record in batch.iter() {
            if let Some(Ok(owner)) = record.value.map(TopicOwner::decode) {
                owners.insert(batch.partition(), owner);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_is_never_made_ends() {
        let error = within(Duration::from_millis(1), Box::pin(std::future::pending())).await.err().unwrap();
        assert_eq!(error.to_string(), "no connection within 1ms");
    }

    #[test]
    fn why_a_coordinator_cannot_be_called_has_the_causes() {
        let inner = io::Error::other("invalid peer certificate: UnknownIssuer");
        let error = millrace_log::LogError::unavailable("connect").because(inner);
        assert!(with_causes(&error).starts_with("connect"), "{}", with_causes(&error));
        assert!(with_causes(&error).ends_with("UnknownIssuer"), "{}", with_causes(&error));
    }

    #[test]
    fn a_key_goes_to_encrypted_urls_and_to_this_machine() {
        for safe in ["https://delivery-1:8085", "http://127.0.0.1:8085", "http://[::1]:8085", "http://localhost:1"] {
            assert!(!crosses_a_network_in_clear(safe), "{safe}");
        }
        for clear in
            ["http://delivery-1:8085", "http://192.0.2.1:8085", "http://127.0.0.1.example:1", "delivery-1:8085", ""]
        {
            assert!(crosses_a_network_in_clear(clear), "{clear}");
        }
    }
}
