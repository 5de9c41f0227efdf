//! Calls to the write side, repeated while it is unavailable.

use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderValue, Method};
use http_body_util::Full;
use millrace_base::Backoff;
use tokio::time::{Instant, sleep};

use crate::client::{Connection, ExchangeError, Response, Target, Verdict, verdict};

/// Larger than a page of messages, whose bodies are 10 MiB and may be in base64.
const MAX_BODY: usize = 64 << 20;
/// Pauses between tries.
const MIN_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Bytes,
    /// How long the service may wait before it answers, beside the timeout.
    pub(crate) wait: Duration,
    /// Whether the request may be repeated after an answer that was lost.
    pub(crate) repeatable: bool,
    /// A code with which the service refuses for a while.
    pub(crate) temporary: Option<&'static str>,
}

impl Call {
    pub(crate) fn new(method: Method, target: String) -> Self {
        let (headers, body, wait) = (Vec::new(), Bytes::new(), Duration::ZERO);
        Self { method, target, headers, body, wait, repeatable: true, temporary: None }
    }

    pub(crate) fn json(self, body: &serde_json::Value) -> Self {
        let mut call = Self { body: body.to_string().into(), ..self };
        call.headers.push((http::header::CONTENT_TYPE, HeaderValue::from_static("application/json")));
        call
    }
}

/// Why there is no good answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The service refuses.
    #[error("{why}")]
    Refused {
        /// The problem's code, if Millrace refuses.
        code: Option<String>,
        /// Status, code and detail.
        why: String,
    },
    /// No answer for as long as it was tried; nothing was changed, or the same call again is safe.
    #[error("{0}: {1}")]
    Unavailable(String, String),
    /// The request may have taken effect, and repeating it is not safe.
    #[error("{0}: {1}; the request may have taken effect")]
    Unknown(String, String),
}

impl Failure {
    /// Whether the same call may succeed later.
    pub(crate) fn is_temporary(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }
}

/// The write side.
#[derive(Debug)]
pub(crate) struct Service {
    target: Target,
    connection: Option<Connection>,
    timeout: Duration,
    patience: Duration,
    /// Whether to report, on standard error, that it waits and that it goes on.
    verbose: bool,
}

/// A try without a good answer.
enum Trouble {
    Final(Failure),
    /// Worth another try, after a pause.
    Passing(String, Duration),
}

impl Service {
    pub(crate) fn new(target: Target, timeout: Duration, patience: Duration) -> Self {
        Self { target, connection: None, timeout, patience, verbose: false }
    }

    /// Reports interruptions.
    pub(crate) fn verbose(self) -> Self {
        Self { verbose: true, ..self }
    }

    /// Makes a call until it has a final answer, for as long as the patience lasts.
    pub(crate) async fn call(&mut self, call: &Call) -> Result<Response, Failure> {
        let mut backoff = Backoff::new(MIN_PAUSE, MAX_PAUSE);
        let mut since: Option<Instant> = None;
        loop {
            let (why, after) = match self.attempt(call).await {
                Ok(answer) => {
                    if since.is_some() && self.verbose {
                        eprintln!("millrace: {} answers again", self.target);
                    }
                    return Ok(answer);
                }
                Err(Trouble::Final(failure)) => return Err(failure),
                Err(Trouble::Passing(why, after)) => (why, after),
            };
            if since.is_none() && self.verbose {
                eprintln!("millrace: {}: {why}; retrying", self.target);
            }
            let pause = backoff.next_pause().max(after);
            if since.get_or_insert_with(Instant::now).elapsed() + pause > self.patience {
                return Err(Failure::Unavailable(self.target.to_string(), why));
            }
            sleep(pause).await;
        }
    }

    async fn attempt(&mut self, call: &Call) -> Result<Response, Trouble> {
        let passing = |why: String| Trouble::Passing(why, Duration::ZERO);
        let lost = |why: String| {
            if call.repeatable { passing(why) } else { Trouble::Final(Failure::Unknown(self.target.to_string(), why)) }
        };
        let mut connection = match self.connection.take().filter(Connection::is_reusable) {
            Some(connection) => connection,
            None => match self.target.open(self.timeout).await {
                Ok(connection) => connection.with_max_body(MAX_BODY),
                Err(error) => return Err(passing(error.to_string())),
            },
        };
        let mut request = http::Request::builder().method(&call.method).uri(&call.target);
        for (name, value) in &call.headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(call.body.clone()));
        let request =
            request.map_err(|error| Trouble::Final(Failure::Refused { code: None, why: error.to_string() }))?;
        let response = match connection.exchange(request, self.timeout + call.wait).await {
            Ok(response) => response,
            Err(error @ ExchangeError::Unsent) => return Err(passing(error.to_string())),
            Err(error) => return Err(lost(error.to_string())),
        };
        if connection.is_reusable() {
            self.connection = Some(connection);
        }
        if (200..300).contains(&response.status) {
            return Ok(response);
        }
        let why = response.summary();
        let code = response.code();
        if call.temporary.is_some() && call.temporary == code.as_deref() {
            return Err(Trouble::Passing(why, MIN_PAUSE));
        }
        let after = response.retry_after.unwrap_or_default();
        match verdict::of_request(response.status, &response.body) {
            Verdict::Retriable => Err(Trouble::Passing(why, after)),
            Verdict::Unknown if call.repeatable => Err(Trouble::Passing(why, after)),
            Verdict::Unknown => Err(Trouble::Final(Failure::Unknown(self.target.to_string(), why))),
            Verdict::Acknowledged | Verdict::Rejected => Err(Trouble::Final(Failure::Refused { code, why })),
        }
    }
}
