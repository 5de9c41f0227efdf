//! Asks the query service for a piece, once more where it says so.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable as _};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{ACCEPT, HOST, RETRY_AFTER};
use hyper_util::rt::TokioIo;
use millrace_service::shown;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Step, Stop};

/// A piece of 100,000 hours, the most that can be configured, is smaller.
const MOST_BYTES: usize = 64 << 20;
const ATTEMPTS: usize = 4;
/// A service that wants more is asked by a person.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Where pieces come from.
#[derive(Debug)]
pub(crate) struct Source {
    /// `host:port` of the query service.
    pub(crate) authority: String,
    /// For a whole answer.
    pub(crate) timeout: Duration,
}

/// An answer that is no piece, and when to ask again if that may help.
struct Failure {
    why: String,
    after: Option<Duration>,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
}

impl Source {
    /// The rows of a piece as NDJSON.
    pub(super) async fn piece(&self, from: i64, to: i64, step: Step) -> Result<Bytes, Stop> {
        let pauses = ExponentialBuilder::default().with_max_delay(LONGEST_PAUSE).with_max_times(ATTEMPTS - 1);
        let ask = || self.ask(from, to, step);
        let retried = ask
            .retry(pauses)
            .when(|failure| failure.after.is_some_and(|after| after <= LONGEST_PAUSE))
            .adjust(|failure, pause| Some(pause?.max(failure.after.unwrap_or_default())));
        retried.await.map_err(|Failure { why, after }| match after {
            Some(_) => Stop::Later(self.authority.clone(), why),
            None => Stop::Refused(self.authority.clone(), why),
        })
    }

    async fn ask(&self, from: i64, to: i64, step: Step) -> Result<Bytes, Failure> {
        // A read changes nothing, so whatever went wrong on the way is worth another try.
        let lost = |why| Failure { why, after: Some(Duration::ZERO) };
        let target = format!("/analytics/range?from={from}&to={to}&step={step}");
        let answer = timeout(self.timeout, self.exchange(&target)).await;
        let answer = answer.map_err(|_| lost(format!("no answer within {:?}", self.timeout)))?;
        let (status, after, body) = answer.map_err(|e| lost(format!("{e:#}")))?;
        if status == 200 {
            return Ok(body);
        }
        let problem: Option<Problem> = serde_json::from_slice(&body).ok();
        let told = problem.map(|problem| format!(": {}: {}", shown(&problem.code), shown(&problem.detail)));
        let why = format!("answered {status}{}", told.unwrap_or_default());
        Err(Failure { why, after: matches!(status, 429 | 503).then_some(after) })
    }

    async fn exchange(&self, target: &str) -> anyhow::Result<(u16, Duration, Bytes)> {
        let stream = TcpStream::connect(&self.authority).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // Ends with the answer, or when this process does.
        tokio::spawn(connection);
        let request = http::Request::get(target).header(HOST, &self.authority).header(ACCEPT, "application/x-ndjson");
        let response = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
        let status = response.status().as_u16();
        let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        // A store that goes away, or is found to be rebuilding, after the first rows ends the answer in the middle.
        let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
        let body = body.map_err(|e| anyhow::anyhow!("the answer was cut short: {e}"))?;
        Ok((status, Duration::from_secs(after.unwrap_or(1)), body.to_bytes()))
    }
}
