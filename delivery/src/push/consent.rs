//! The consent of an endpoint (CloudEvents, HTTP webhooks): whether it wants requests of this origin, and how many.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method};
use millrace_contracts::topics::AttemptError;
use millrace_contracts::{Code, Refusal};

use super::attempt::{Sender, classify};

const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const REQUEST_RATE: HeaderName = HeaderName::from_static("webhook-request-rate");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

impl Sender {
    /// Requests the endpoint's consent; returns the requests a minute that it allows, `None` for any number. Nothing of the
    /// subscription's own is sent: whoever the URL belongs to has not agreed to anything yet.
    pub(crate) async fn request_consent(
        &self,
        url: &str,
        timeout: Duration,
        origin: &str,
        per_minute: Option<u32>,
    ) -> Result<Option<u32>, Refusal> {
        let url = self.targets.check_url(url)?;
        let mut request = self.client.request(Method::OPTIONS, url).header(REQUEST_ORIGIN, origin);
        if let Some(rate) = per_minute {
            request = request.header(REQUEST_RATE, rate);
        }
        let response = tokio::time::timeout(timeout, request.send()).await;
        let response = response.map_err(|_| unanswered(AttemptError::Timeout))?;
        let response = response.map_err(|error| unanswered(classify(&error)))?;
        let status = response.status();
        if !status.is_success() {
            return Err(refused(&format!("answers OPTIONS with {}", status.as_u16())));
        }
        allowed(response.headers(), origin)
    }
}

fn allowed(headers: &HeaderMap, origin: &str) -> Result<Option<u32>, Refusal> {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?").trim());
    match text(ALLOWED_ORIGIN) {
        Some(allowed) if allowed == "*" || allowed.eq_ignore_ascii_case(origin) => {}
        Some(_) => return Err(refused("allows another origin")),
        None => return Err(refused("answers without WebHook-Allowed-Origin")),
    }
    match text(ALLOWED_RATE) {
        None | Some("*") => Ok(None),
        Some(rate) => match rate.parse::<u32>() {
            Ok(rate) if rate > 0 => Ok(Some(rate)),
            _ => Err(refused("has a WebHook-Allowed-Rate that is neither a positive whole number nor *")),
        },
    }
}

fn unanswered(error: AttemptError) -> Refusal {
    match error {
        AttemptError::BlockedTarget => {
            let detail =
                "the endpoint's address is not one that push may connect to; delivery.allow_targets can allow it";
            Refusal::new(Code::BlockedTarget, detail).field("push.url")
        }
        error => refused(&format!("does not answer OPTIONS: {}", error.as_str())),
    }
}

fn refused(why: &str) -> Refusal {
    let detail = format!("the endpoint does not consent: it {why}");
    Refusal::new(Code::ConsentRefused, detail).field("push.consent")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn consent_names_the_origin_and_may_bound_the_rate() {
        let of = |origin: Option<&'static str>, rate: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            headers.extend(origin.map(|origin| (ALLOWED_ORIGIN, HeaderValue::from_static(origin))));
            headers.extend(rate.map(|rate| (ALLOWED_RATE, HeaderValue::from_static(rate))));
            allowed(&headers, "events.example.com").map_err(|refusal| refusal.code)
        };
        assert_eq!(of(Some("events.example.com"), None), Ok(None));
        assert_eq!(of(Some("Events.Example.com"), Some("120")), Ok(Some(120)));
        assert_eq!(of(Some("*"), Some("*")), Ok(None));
        for (origin, rate) in
            [(None, None), (None, Some("120")), (Some("example.com"), None), (Some(""), None), (Some("*"), Some("0"))]
        {
            assert_eq!(of(origin, rate), Err(Code::ConsentRefused), "{origin:?} {rate:?}");
        }
        assert_eq!(of(Some("*"), Some("-1")), Err(Code::ConsentRefused));
        assert_eq!(of(Some("*"), Some("many")), Err(Code::ConsentRefused));
    }
}
