//! One attempt: a request to an endpoint, and how it ended.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use millrace_contracts::topics::AttemptError;
use url::Url;

use super::target::{GuardedResolver, ResolveError, Targets};

/// Timeout of connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle connections to one host, and how long they are kept.
const IDLE_PER_HOST: usize = 16;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a response that are read, so that the connection can be used again.
const MAX_RESPONSE: usize = 16 << 10;
/// Bytes of a response that are remembered.
const MAX_ANSWER: usize = 1 << 10;
/// The longest rest that an endpoint may request.
const MAX_REST: Duration = Duration::from_hours(1);

/// Sends requests to endpoints. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(super) client: reqwest::Client,
    pub(crate) targets: Arc<Targets>,
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) struct Attempted {
    /// `None`: a success.
    pub(crate) error: Option<AttemptError>,
    pub(crate) status: Option<u16>,
    pub(crate) latency: Duration,
    /// The rest that the endpoint requests.
    pub(crate) rest: Option<Duration>,
    /// The beginning of the response.
    pub(crate) answer: Option<String>,
}

impl Sender {
    pub(crate) fn new(targets: Targets) -> Result<Self, reqwest::Error> {
        let targets = Arc::new(targets);
        let client = reqwest::Client::builder()
            // A redirect could lead anywhere, as could a proxy from the environment.
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(GuardedResolver(targets.clone())))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build()?;
        Ok(Self { client, targets })
    }

    /// Sends one request. Never fails: a failure is a result.
    pub(crate) async fn send(&self, url: &str, timeout: Duration, headers: HeaderMap, body: Vec<u8>) -> Attempted {
        let began = Instant::now();
        let failed =
            |error| Attempted { error: Some(error), status: None, latency: began.elapsed(), rest: None, answer: None };
        // The settings may be older than what the operator allows now.
        let Ok(url) = self.targets.check_url(url) else { return failed(AttemptError::BlockedTarget) };
        match tokio::time::timeout(timeout, self.request(url, headers, body)).await {
            Err(_) => failed(AttemptError::Timeout),
            Ok(Err(error)) => failed(classify(&error)),
            Ok(Ok(response)) => {
                let latency = began.elapsed();
                let left = timeout.saturating_sub(latency).max(Duration::from_millis(100));
                ended(response, latency, left).await
            }
        }
    }

    async fn request(&self, url: Url, headers: HeaderMap, body: Vec<u8>) -> Result<reqwest::Response, reqwest::Error> {
        self.client.post(url).headers(headers).body(body).send().await
    }
}

async fn ended(mut response: reqwest::Response, latency: Duration, left: Duration) -> Attempted {
    let status = response.status();
    let error = match status {
        status if status.is_success() => None,
        status if status.is_redirection() => Some(AttemptError::Redirect),
        _ => Some(AttemptError::HttpStatus),
    };
    let rest = rest(response.headers()).filter(|_| {
        error.is_some() && matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
    });
    // The status decides; a body that does not end costs the connection, no more.
    let mut body = Vec::new();
    let reading = async {
        while let Ok(Some(piece)) = response.chunk().await {
            body.extend_from_slice(&piece[..piece.len().min(MAX_RESPONSE - body.len())]);
            if body.len() == MAX_RESPONSE {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(left.min(Duration::from_secs(1)), reading).await;
    body.truncate(MAX_ANSWER);
    let answer = (!body.is_empty()).then(|| String::from_utf8_lossy(&body).into_owned());
    Attempted { error, status: Some(status.as_u16()), latency, rest, answer }
}

/// Retry-After: seconds or a date (RFC 9110), at most [`MAX_REST`].
fn rest(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let rest = if let Ok(seconds) = text.parse::<u64>() {
        Duration::from_secs(seconds)
    } else {
        let at = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
        Duration::try_from(Timestamp::now().until(at).ok()?).unwrap_or_default()
    };
    Some(rest.min(MAX_REST))
}

/// Why a request got no response.
pub(super) fn classify(error: &reqwest::Error) -> AttemptError {
    if error.is_timeout() {
        return AttemptError::Timeout;
    }
    kind_of(error)
}

fn kind_of(error: &(dyn Error + 'static)) -> AttemptError {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(error) = cause.downcast_ref::<ResolveError>() {
            return match error {
                ResolveError::Blocked(_) => AttemptError::BlockedTarget,
                ResolveError::Dns(_) | ResolveError::Timeout => AttemptError::Dns,
            };
        }
        if cause.is::<rustls::Error>() {
            return AttemptError::Tls;
        }
        // The source of an I/O error is that of the error in it, which may be another one.
        next = match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        };
    }
    AttemptError::Connect
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn an_error_of_tls_is_found_however_deep() {
        let tls = || rustls::Error::General("no".into());
        for error in [std::io::Error::other(tls()), std::io::Error::other(std::io::Error::other(tls()))] {
            assert_eq!(kind_of(&error), AttemptError::Tls);
        }
        assert_eq!(kind_of(&std::io::Error::from(std::io::ErrorKind::ConnectionRefused)), AttemptError::Connect);
    }

    #[test]
    fn a_rest_is_read_in_both_forms_and_bounded() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::try_from(text).unwrap());
            rest(&headers)
        };
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("999999999"), Some(MAX_REST));
        assert_eq!(of("Fri, 31 Dec 2100 23:59:59 GMT"), Some(MAX_REST));
        assert_eq!(of("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
        assert_eq!(of("soon"), None);
    }
}
