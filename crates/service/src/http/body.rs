//! Reads the body of a request within its bounds: bytes on the wire, bytes inflated, time, and memory shared with all other
//! bodies.

use std::error::Error;
use std::ops::Deref;

use ::http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use ::http::{HeaderMap, Request};
use axum::body::{Body, Bytes, HttpBody};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use millrace_contracts::{Code, Refusal};
use tokio::time::{Instant, timeout_at};

use super::inflate::{Coding, DecodeError};
use super::problem::{RETRY, spread_retry};
use super::{Charset, HttpLimits};
use crate::net::{MemoryBudget, MemoryPermit};
use crate::shown;

/// A request's body, whole. It keeps its share of the memory budget until it is dropped.
pub struct RequestBody {
    bytes: Bytes,
    _permit: Option<MemoryPermit>,
}

impl Deref for RequestBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// What a begun body takes from the memory budget before its first byte: its request waits for as long as the client likes,
/// and a stream of HTTP/2 costs the client a few bytes.
const BEGUN: usize = 16 << 10;

/// Reads the whole body of a request and inflates gzip, br and zstd. A body whose `Content-Length` is too large is refused
/// before any of it is read. The body acquires memory as it arrives, so that a slow client holds no more than it has sent;
/// it is inflated once it has arrived.
///
/// # Errors
/// `too-large` past a size, `request-timeout` past a time, `unsupported-encoding` for another coding, `malformed-body` for
/// data that does not inflate, ends early or goes on past its end, `overloaded` when the bodies under way use up the
/// memory.
pub async fn read_body(
    request: Request<Body>,
    limits: &HttpLimits,
    memory: &MemoryBudget,
) -> Result<RequestBody, Refusal> {
    let max = limits.max_body_bytes.0;
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > max) {
        return Err(too_large(max));
    }
    let coding = coding_of(request.headers())?;
    let wire = Limited::new(request.into_body(), usize::try_from(max).unwrap_or(usize::MAX));
    let body = collect(wire, max, limits, memory).await?;
    let Some(coding) = coding else { return Ok(body) };
    match coding.inflate(&body, limits.max_inflated_bytes.as_usize(), memory).await {
        Ok((inflated, permit)) => Ok(RequestBody { bytes: inflated.into(), _permit: permit }),
        Err(DecodeError::Malformed) => Err(malformed()),
        Err(DecodeError::TooLarge) => Err(too_large(limits.max_inflated_bytes.0)),
        Err(DecodeError::NoMemory) => Err(no_memory()),
    }
}

/// Reads the whole body of a request as [`read_body`] does, and converts it from its charset to UTF-8. A body in UTF-8 stays as it
/// is, not validated.
///
/// # Errors
/// As [`read_body`], and `invalid-encoding` for bytes that stand for no character. The bound of the converted text is that of
/// inflated bodies.
pub async fn read_text(
    request: Request<Body>,
    charset: Charset,
    limits: &HttpLimits,
    memory: &MemoryBudget,
) -> Result<RequestBody, Refusal> {
    let body = read_body(request, limits, memory).await?;
    if charset == Charset::UTF_8 || body.is_empty() {
        return Ok(body);
    }
    match charset.convert(&body, limits.max_inflated_bytes.as_usize(), memory).await {
        Ok((text, permit)) => Ok(RequestBody { bytes: text.into(), _permit: permit }),
        Err(DecodeError::Malformed) => {
            Err(Refusal::new(Code::InvalidEncoding, format!("the body is not valid {}", charset.name())))
        }
        Err(DecodeError::TooLarge) => Err(too_large(limits.max_inflated_bytes.0)),
        Err(DecodeError::NoMemory) => Err(no_memory()),
    }
}

/// The body's content coding, if it has one.
fn coding_of(headers: &HeaderMap) -> Result<Option<Coding>, Refusal> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let Some(coding) = codings.next() else { return Ok(None) };
    let text = coding.to_str().unwrap_or("?").trim();
    if codings.next().is_none() {
        if text.eq_ignore_ascii_case("identity") {
            return Ok(None);
        }
        if let Some(coding) = Coding::of(text) {
            return Ok(Some(coding));
        }
    }
    let detail = format!("content coding \"{}\" is not supported; gzip, br and zstd are", shown(text));
    Err(Refusal::new(Code::UnsupportedEncoding, detail).field("content-encoding"))
}

async fn collect<B>(mut body: B, max: u64, limits: &HttpLimits, memory: &MemoryBudget) -> Result<RequestBody, Refusal>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let end = Instant::now() + limits.body_timeout.0;
    let mut whole = Vec::new();
    let mut first = None;
    let mut permit = memory.try_acquire(BEGUN).ok_or_else(no_memory)?;
    loop {
        let until = end.min(Instant::now() + limits.body_idle_timeout.0);
        let frame = match timeout_at(until, body.frame()).await {
            Err(_) => return Err(Refusal::new(Code::RequestTimeout, "the body took too long to arrive")),
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                let error = error.into();
                return Err(if past_limit(&*error) { too_large(max) } else { malformed() });
            }
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if (whole.len() + first.as_ref().map_or(0, Bytes::len) + data.len()) as u64 > max {
            return Err(too_large(max));
        }
        permit.merge(memory.try_acquire(data.len()).ok_or_else(no_memory)?);
        // Most bodies come in one piece, which needs no copy.
        match first.take() {
            None if whole.is_empty() => first = Some(data),
            earlier => {
                whole.extend_from_slice(&earlier.unwrap_or_default());
                whole.extend_from_slice(&data);
            }
        }
    }
    Ok(RequestBody { bytes: first.unwrap_or_else(|| whole.into()), _permit: Some(permit) })
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

fn too_large(max: u64) -> Refusal {
    Refusal::new(Code::TooLarge, format!("the body is larger than {max} bytes"))
}

fn no_memory() -> Refusal {
    let refusal = Refusal::new(Code::Overloaded, "the bodies under way use up the memory reserved for them");
    refusal.retry_after(spread_retry(RETRY))
}

fn malformed() -> Refusal {
    Refusal::new(Code::MalformedBody, "the body ends early or is not in its transfer or content coding")
}
