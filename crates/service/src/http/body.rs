//! Reading a request's body within its bounds: on the wire, inflated, in time, and in memory together with all others.

use std::convert::Infallible;
use std::error::Error;
use std::future::ready;
use std::ops::Deref;
use std::sync::Arc;

use ::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use ::http::{HeaderMap, Request, Response};
use axum::body::{Body, Bytes, HttpBody};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use millrace_contracts::Code;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};
use tower::{ServiceExt, service_fn};
use tower_http::decompression::RequestDecompression;

use super::HttpLimits;
use crate::{Problem, shown};

/// The memory that all bodies under way share. Cheap to clone; every clone is the same memory.
#[derive(Debug, Clone)]
pub struct BodyMemory(Arc<Semaphore>);

impl BodyMemory {
    /// For so many bytes.
    pub fn new(bytes: u64) -> Self {
        let most = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self(Arc::new(Semaphore::new(most)))
    }

    /// A part of it; nobody waits for one.
    fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        self.0.clone().try_acquire_many_owned(u32::try_from(bytes).ok()?).ok()
    }
}

/// A body that was read. Until it is dropped it takes its part of the memory.
#[derive(Debug)]
pub struct HeldBody {
    bytes: Bytes,
    _part: Option<OwnedSemaphorePermit>,
}

impl Deref for HeldBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads the whole body of a request, inflating gzip, br and zstd. A body that says it is too large is refused before
/// any of it is read. It takes `memory` as it arrives, so that a slow client holds no more than it has sent.
///
/// # Errors
/// 413 past a size, 408 past a time, 415 for another coding, 400 for data that does not inflate or ends early, 503 when
/// the bodies under way take all the memory.
pub async fn read_body(request: Request<Body>, limits: &HttpLimits, memory: &BodyMemory) -> Result<HeldBody, Problem> {
    let most = limits.body_bytes.0;
    let said = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if said.is_some_and(|length| length > most) {
        return Err(too_large(most));
    }
    let coded = is_coded(request.headers())?;
    let wire = request.map(|body| Limited::new(body, usize::try_from(most).unwrap_or(usize::MAX)));
    if !coded {
        return collect(wire.into_body(), most, most, limits, memory).await;
    }
    // The inflating service hands the inflated body to its inner one, which hands it back.
    let echo = service_fn(|request: Request<_>| ready(Ok::<_, Infallible>(Response::new(request.into_body()))));
    match RequestDecompression::new(echo).oneshot(wire).await {
        Ok(response) => collect(response.into_body(), most, limits.inflated_bytes.0, limits, memory).await,
        Err(_) => Err(malformed()),
    }
}

/// Whether the body has a content coding, one that is served.
fn is_coded(headers: &HeaderMap) -> Result<bool, Problem> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(false) };
    let text = coding.to_str().unwrap_or("?").trim();
    if codings.next().is_none() {
        if text.eq_ignore_ascii_case("identity") {
            return Ok(false);
        }
        // The inflating service matches lower case only.
        if ["gzip", "br", "zstd"].contains(&text) {
            return Ok(true);
        }
    }
    let detail = format!("content coding \"{}\" is not served; gzip, br and zstd are", shown(text));
    Err(Problem::new(Code::UnsupportedEncoding, detail).field("content-encoding"))
}

async fn collect<B>(
    mut body: B,
    wire: u64,
    most: u64,
    limits: &HttpLimits,
    memory: &BodyMemory,
) -> Result<HeldBody, Problem>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let end = Instant::now() + limits.body_timeout.0;
    let mut whole = Vec::new();
    let mut first = None;
    let mut part: Option<OwnedSemaphorePermit> = None;
    loop {
        let until = end.min(Instant::now() + limits.body_idle_timeout.0);
        let frame = match timeout_at(until, body.frame()).await {
            Err(_) => return Err(Problem::new(Code::RequestTimeout, "the body took too long to arrive")),
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                let error = error.into();
                return Err(if past_limit(&*error) { too_large(wire) } else { malformed() });
            }
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if (whole.len() + first.as_ref().map_or(0, Bytes::len) + data.len()) as u64 > most {
            return Err(too_large(most));
        }
        let more = memory.take(data.len()).ok_or_else(no_memory)?;
        match &mut part {
            None => part = Some(more),
            Some(part) => part.merge(more),
        }
        // Most bodies come in one piece, which needs no copy.
        match first.take() {
            None if whole.is_empty() => first = Some(data),
            earlier => {
                whole.extend_from_slice(&earlier.unwrap_or_default());
                whole.extend_from_slice(&data);
            }
        }
    }
    Ok(HeldBody { bytes: first.unwrap_or_else(|| whole.into()), _part: part })
}

fn past_limit(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        // An io::Error shows its inner error only here, not as its source.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        cause = inner.map(|inner| inner as &(dyn Error + 'static)).or_else(|| error.source());
    }
    false
}

fn too_large(most: u64) -> Problem {
    Problem::new(Code::TooLarge, format!("the body is larger than {most} bytes"))
}

fn no_memory() -> Problem {
    let problem = Problem::new(Code::Overloaded, "the bodies under way take all the memory there is for them");
    problem.retry_spread(super::RETRY)
}

fn malformed() -> Problem {
    Problem::new(Code::MalformedBody, "the body ends early or is not in its transfer or content coding")
}
