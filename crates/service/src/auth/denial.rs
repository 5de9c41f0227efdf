//! Why a request may not pass, as a response.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::WWW_AUTHENTICATE;
use metrics::counter;
use millrace_contracts::{Code, Refusal, metric};

use super::Scope;
use crate::Problem;
use crate::http::legacy_error;
use crate::net::spread;

/// Why a request may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// There is no credential.
    Missing,
    /// The credential is not valid. Unknown, revoked and expired ones are not told apart.
    Invalid,
    /// It is not known yet whether the credential is valid: the issuer's keys have not been read.
    Unavailable,
    /// The token is of a key that the issuer may have published since: its keys are being read again.
    UnknownKey,
    /// The credential has none of these scopes.
    Scope(&'static [Scope]),
    /// A browser sent it for a page of another site.
    CrossSite,
    /// There is no valid credential, and the address has sent too many such requests.
    TooMany {
        /// When it may send another.
        retry_after: Duration,
    },
}

impl Denial {
    fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::Unavailable | Self::UnknownKey => "unavailable",
            Self::Scope(_) => "scope",
            Self::CrossSite => "cross-site",
            Self::TooMany { .. } => "rate-limited",
        }
    }

    /// Counts it.
    pub fn count(self) {
        counter!(metric::AUTH_DENIED.name, "reason" => self.reason()).increment(1);
    }

    /// The code in the audit log; `None` if the client is not at fault.
    pub(super) fn code(self) -> Option<Code> {
        match self {
            Self::Missing | Self::Invalid => Some(Code::Unauthenticated),
            Self::Unavailable | Self::UnknownKey => None,
            Self::Scope(_) => Some(Code::Forbidden),
            Self::CrossSite => Some(Code::CrossSite),
            Self::TooMany { .. } => Some(Code::RateLimited),
        }
    }

    /// The refusal, counted.
    fn refusal(self) -> Refusal {
        self.count();
        match self {
            Self::Missing => Refusal::new(Code::Unauthenticated, "the request has no credential"),
            Self::Invalid => Refusal::new(Code::Unauthenticated, "the credential is not valid"),
            Self::Unavailable => {
                Refusal::new(Code::Unavailable, "the keys of the token's issuer have not been read yet")
            }
            Self::UnknownKey => {
                Refusal::new(Code::Unavailable, "the keys of the token's issuer are being read again, for this token")
            }
            Self::Scope(needed) => {
                let detail = format!("the credential lacks the scope {}", joined(needed, " or "));
                Refusal::new(Code::Forbidden, detail)
            }
            Self::TooMany { retry_after } => {
                let detail = "too many requests without a valid credential from this address";
                Refusal::new(Code::RateLimited, detail).retry_after(spread(retry_after))
            }
            Self::CrossSite => Refusal::new(Code::CrossSite, "a page of another site may not send this request"),
        }
    }
}

fn joined(scopes: &[Scope], by: &str) -> String {
    scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(by)
}

impl Denial {
    /// The response to one of the earlier system's calls.
    pub(super) fn into_legacy_error(self) -> Response {
        self.challenge(legacy_error(&self.refusal()))
    }

    /// Adds what a client may show to get in.
    fn challenge(self, mut response: Response) -> Response {
        let challenges: &[&str] = match self {
            Self::Missing => &[r#"Bearer realm="millrace""#, BASIC],
            Self::Invalid => &[r#"Bearer realm="millrace", error="invalid_token""#, BASIC],
            Self::Scope(needed) => {
                let scope = joined(needed, " ");
                let challenge = format!(r#"Bearer realm="millrace", error="insufficient_scope", scope="{scope}""#);
                if let Ok(challenge) = HeaderValue::try_from(challenge) {
                    response.headers_mut().append(WWW_AUTHENTICATE, challenge);
                }
                &[]
            }
            Self::CrossSite | Self::Unavailable | Self::UnknownKey | Self::TooMany { .. } => &[],
        };
        for challenge in challenges {
            response.headers_mut().append(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        response
    }
}

impl IntoResponse for Denial {
    fn into_response(self) -> Response {
        self.challenge(Problem::from(self.refusal()).into_response())
    }
}

/// Browsers ask for a password.
const BASIC: &str = r#"Basic realm="millrace", charset="UTF-8""#;

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http::header::RETRY_AFTER;

    use super::*;

    #[test]
    fn whoever_may_come_again_learns_when() {
        let too_many = Denial::TooMany { retry_after: Duration::from_secs(7) };
        for (denial, status, least) in
            [(too_many, StatusCode::TOO_MANY_REQUESTS, 7), (Denial::Unavailable, StatusCode::SERVICE_UNAVAILABLE, 1)]
        {
            for response in [denial.into_legacy_error(), denial.into_response()] {
                assert_eq!(response.status(), status);
                let after: u64 = response.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
                assert!(after >= least, "{after}");
            }
        }
    }
}
