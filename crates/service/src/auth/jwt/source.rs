//! Where the issuer's keys come from: a file, read each second, or a URL, read at an interval and for unknown keys.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use metrics::gauge;
use millrace_base::Backoff;
use millrace_contracts::metric;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::key_set::KeySet;
use super::{JwtConfig, Tokens};
use crate::audit::Audit;
use crate::auth::rate::Quotas;
use crate::files::{self, FileError, Reading};
use crate::health::Health;
use crate::net::{Socket, TlsClient};

/// Longest read of a URL, from the connection to the last byte.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer of a URL.
const MAX_BYTES: usize = 256 << 10;
/// Pauses after reads that failed.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_mins(1);
const WHAT: &str = "the issuer's keys";

/// Why a URL cannot be read.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no answer within 5 s")]
    TimedOut(#[from] tokio::time::error::Elapsed),
    #[error("no connection: {0}")]
    Connect(#[from] io::Error),
    #[error("no answer: {0}")]
    Exchange(#[from] hyper::Error),
    #[error("no request: {0}")]
    Request(#[from] http::Error),
    #[error("the answer has status {0}; redirects are not followed")]
    Status(StatusCode),
    #[error("no whole answer of at most 256 KiB: {0}")]
    Body(Box<dyn Error + Send + Sync>),
    #[error("the answer {0}")]
    Content(String),
}

/// Reads the issuer's keys and follows them until `stop` is canceled; `None` without an issuer. What cannot be read later
/// changes nothing: the last keys stay in use, and the component `jwks` of `health` has a warning. A URL that cannot be read
/// at start is that, too: keys are of use without it, and tokens are once it answers.
///
/// # Errors
/// A file is missing or broken.
pub(in crate::auth) fn start(
    config: &JwtConfig,
    quotas: Arc<Quotas>,
    audit: &Audit,
    health: &Health,
    stop: &CancellationToken,
) -> Result<Option<Arc<Tokens>>, FileError> {
    if !config.is_on() {
        return Ok(None);
    }
    let tokens = Arc::new(Tokens::new(config.clone(), quotas, audit.clone()));
    let reading = || {
        let component = health.component("jwks");
        component.ready();
        Reading::new(WHAT, component, gauge!(metric::AUTH_JWKS_STALE.name))
    };
    if let Some(remote) = Remote::new(config)? {
        let follow = remote.follow(tokens.clone(), reading());
        tokio::spawn(stop.clone().run_until_cancelled_owned(follow));
    } else {
        let (path, followed, mut last) = (config.jwks_file.clone(), tokens.clone(), None);
        let mut read = move || {
            let bytes = files::read(&path)?;
            if last.as_ref() != Some(&bytes) {
                followed.replace(&bytes).map_err(|problem| FileError::invalid(&path, problem))?;
                last = Some(bytes);
            }
            Ok(())
        };
        read()?;
        tokio::spawn(stop.clone().run_until_cancelled_owned(files::follow(reading(), read)));
    }
    Ok(Some(tokens))
}

/// Checks that the files of the settings can be used.
///
/// # Errors
/// One is missing or broken.
pub(in crate::auth) fn check(config: &JwtConfig) -> Result<(), FileError> {
    if config.is_on() && Remote::new(config)?.is_none() {
        let (path, bytes) = (&config.jwks_file, files::read(&config.jwks_file)?);
        KeySet::parse(&bytes, config).map_err(|problem| FileError::invalid(path, problem))?;
    }
    Ok(())
}

/// The URL with the issuer's keys.
struct Remote {
    url: Uri,
    /// `None` for http, on loopback.
    tls: Option<TlsClient>,
    interval: Duration,
}

impl Remote {
    fn new(config: &JwtConfig) -> Result<Option<Self>, FileError> {
        let Some(url) = config.url() else { return Ok(None) };
        let authorities = Some(config.jwks_ca_file.as_path()).filter(|path| *path != Path::new(""));
        let encrypted = url.scheme_str() == Some("https");
        let tls = encrypted.then(|| TlsClient::new(authorities)).transpose()?;
        Ok(Some(Self { url, tls, interval: config.jwks_refresh_interval.0 }))
    }

    async fn follow(self, tokens: Arc<Tokens>, mut reading: Reading) {
        let mut backoff = Backoff::new(MIN_PAUSE, MAX_PAUSE);
        loop {
            let begun = tokens.refresh.begin();
            let outcome = self.fetch().await.and_then(|body| tokens.replace(&body).map_err(FetchError::Content));
            tokens.refresh.end(begun);
            let pause = if outcome.is_ok() {
                backoff.reset();
                self.interval
            } else {
                backoff.next_pause()
            };
            reading.report(outcome.map_err(|error| format!("{}: {error}", self.url)));
            tokio::select! {
                () = sleep(pause) => {}
                () = tokens.refresh.requested() => {}
            }
        }
    }

    async fn fetch(&self) -> Result<Bytes, FetchError> {
        timeout(TIMEOUT, self.exchange()).await?
    }

    async fn exchange(&self) -> Result<Bytes, FetchError> {
        let (host, authority) = (self.url.host().unwrap_or_default(), self.url.authority());
        let port = self.url.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        let socket = match &self.tls {
            Some(tls) => tls.connect(host, stream).await?,
            None => Socket::Plain(stream),
        };
        let (mut sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
        // Ends with this function at the latest.
        let mut connections = JoinSet::new();
        connections.spawn(connection);
        let path = self.url.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::get(path)
            .header(HOST, authority.map_or("", |authority| authority.as_str()))
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.map_err(FetchError::Body)?;
        Ok(body.to_bytes())
    }
}
