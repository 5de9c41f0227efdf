//! Requests a piece from the query service, with retries.

use std::time::Duration;

use bytes::Bytes;
use http::header::ACCEPT;
use http_body_util::Full;
use millrace_base::Backoff;

use super::{Step, Stop};
use crate::client::{Response, Target};

/// Larger than a piece of 100,000 hours, the configurable maximum.
const MAX_BODY: usize = 64 << 20;
const MAX_ATTEMPTS: u32 = 4;
/// Pauses between attempts; a person decides whether to wait for a longer Retry-After.
const MIN_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// The query service.
#[derive(Debug)]
pub(crate) struct Source {
    /// The query service.
    pub(crate) target: Target,
    /// Timeout of a whole response.
    pub(crate) timeout: Duration,
}

/// A request without a piece as its response, and the earliest time for a retry, if one may succeed.
struct Failure {
    why: String,
    after: Option<Duration>,
}

impl Source {
    /// The rows of a piece as NDJSON.
    pub(super) async fn piece(&self, from: i64, to: i64, step: Step) -> Result<Bytes, Stop> {
        let mut backoff = Backoff::new(MIN_PAUSE, MAX_PAUSE);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let Failure { why, after } = match self.attempt(from, to, step).await {
                Ok(piece) => return Ok(piece),
                Err(failure) => failure,
            };
            let Some(after) = after else { return Err(Stop::Refused(self.target.to_string(), why)) };
            if attempts == MAX_ATTEMPTS || after > MAX_PAUSE {
                return Err(Stop::Later(self.target.to_string(), why));
            }
            tokio::time::sleep(backoff.next_pause().max(after)).await;
        }
    }

    async fn attempt(&self, from: i64, to: i64, step: Step) -> Result<Bytes, Failure> {
        // A read has no effect, so that any failure of the exchange is worth a retry.
        let lost = |why| Failure { why, after: Some(Duration::ZERO) };
        let response =
            self.exchange(&format!("/analytics/range?from={from}&to={to}&step={step}")).await.map_err(lost)?;
        if response.status == 200 {
            return Ok(response.body);
        }
        let why = format!("status {}", response.summary());
        let after = response.retry_after.unwrap_or(Duration::from_secs(1));
        Err(Failure { why, after: matches!(response.status, 429 | 503).then_some(after) })
    }

    async fn exchange(&self, path: &str) -> Result<Response, String> {
        let connection = self.target.open(self.timeout).await.map_err(|e| e.to_string())?;
        let request = http::Request::get(path).header(ACCEPT, "application/x-ndjson").body(Full::default());
        let request = request.map_err(|e| e.to_string())?;
        // A store that becomes unavailable, or starts to rebuild, after the first rows breaks the response off.
        connection.with_max_body(MAX_BODY).exchange(request, self.timeout).await.map_err(|e| e.to_string())
    }
}
