//! Which requests the audit log records, and how.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method};
use millrace_contracts::{AuditOutcome, Code, Refusal};
use uuid::Uuid;

use super::{Authenticator, Denial, Identity, routes};
use crate::audit::Act;
use crate::http::query_string::decode_segment;
use crate::http::{Peer, REQUEST_ID, RefusalCode};

const TOPIC: &str = "/v1/topics/{topic}";
const GRANT: &str = "/v1/topics/{topic}/grants/{principal}";
const SUBSCRIPTION: &str = "/v1/topics/{topic}/subscriptions/{subscription}";
const DEAD_LETTERS: &str = "/v1/topics/{topic}/subscriptions/{subscription}/dead-letters";
/// The verbs of a subscription that manage it. Consumers use the others all the time.
const VERBS: [&str; 5] = [
    "subscription.suspend",
    "subscription.resume",
    "subscription.seek",
    "subscription.rotate-secret",
    "subscription.test",
];

/// The action of a request to a route; `None` if it is not recorded.
fn action(method: &Method, route: &str, path: &str) -> Option<&'static str> {
    if method.is_safe() {
        return None;
    }
    match (routes::legacy(route).unwrap_or(route), method.as_str()) {
        ("/topic/register/{topic}", "POST") | (TOPIC, "PUT") => Some("topic.create"),
        (TOPIC, "PATCH") => Some("topic.alter"),
        (TOPIC, "DELETE") => Some("topic.delete"),
        (GRANT, "PUT") => Some("grant.set"),
        (GRANT, "DELETE") => Some("grant.revoke"),
        ("/topic/subscribe/{topic}", "POST") | (SUBSCRIPTION, "PUT") => Some("subscription.create"),
        (SUBSCRIPTION, "PATCH") => Some("subscription.alter"),
        (SUBSCRIPTION, "DELETE") => Some("subscription.delete"),
        (SUBSCRIPTION, "POST") => {
            let verb = verb(path)?;
            VERBS.into_iter().find(|action| action.strip_prefix("subscription.") == Some(&*verb))
        }
        // The router has this path with each spelling of its colon.
        (route, "POST") if route.starts_with(DEAD_LETTERS) => Some("subscription.redrive"),
        ("/admin/rebuild", "PUT") => Some("store.rebuild"),
        _ if is_administrative(route) => Some("admin"),
        _ => None,
    }
}

/// The verb of a path: what follows the last colon of its last segment, decoded as the router does it.
fn verb(path: &str) -> Option<String> {
    let last = decode_segment(path.rsplit('/').next()?).ok()?;
    last.rsplit_once(':').map(|(_, verb)| verb.to_owned())
}

fn is_administrative(route: &str) -> bool {
    route.starts_with("/admin/")
}

/// A request that is recorded when it ends. If it is dropped before, its outcome is unknown.
pub(super) struct Recording {
    auth: Authenticator,
    identity: Arc<Identity>,
    action: &'static str,
    object: String,
    source: Option<IpAddr>,
    administrative: bool,
    ended: bool,
}

impl Recording {
    /// The recording of a request; `None` if it is not recorded.
    pub(super) fn of(request: &Request, auth: &Authenticator, identity: &Arc<Identity>) -> Option<Self> {
        let route = request.extensions().get::<MatchedPath>()?.as_str();
        let action = action(request.method(), route, request.uri().path())?;
        let administrative = is_administrative(route);
        // The query string of a public route may hold a secret by mistake; that of an administrator names the store.
        let object = match request.uri().path_and_query() {
            Some(all) if administrative => all.as_str(),
            _ => request.uri().path(),
        };
        Some(Self {
            auth: auth.clone(),
            identity: identity.clone(),
            action,
            object: object.to_owned(),
            source: source(request),
            administrative,
            ended: false,
        })
    }

    /// Records that an act of administration begins.
    ///
    /// # Errors
    /// It cannot be recorded, so it must not be done.
    pub(super) async fn begin(&mut self) -> Result<(), Refusal> {
        if self.administrative {
            // Without this record nothing begins, and a drop has nothing to record.
            self.ended = true;
            self.auth.audit().begin(self.act("")).await?;
            self.ended = false;
        }
        Ok(())
    }

    /// Records the outcome by the response, which gets a request id if it has none.
    pub(super) fn end(mut self, response: &mut Response) {
        self.ended = true;
        ensure_request_id(response);
        let status = response.status();
        let code = response.extensions().get::<RefusalCode>().map(|code| code.0);
        let (audit, act) = (self.auth.audit(), self.act(request_id(response)));
        let text = match code {
            Some(code) => code.as_str(),
            None if status.is_client_error() || status.is_server_error() => status.as_str(),
            None => return audit.end(act, AuditOutcome::Done, ""),
        };
        // An act of administration may fail after a part of its effect.
        if matches!(code, Some(Code::OutcomeUnknown | Code::Internal))
            || (self.administrative && status.is_server_error())
        {
            audit.end(act, AuditOutcome::Unknown, text);
        } else if self.administrative {
            audit.end(act, AuditOutcome::Refused, text);
        } else {
            audit.refused(act, text);
        }
    }

    fn act<'a>(&'a self, request_id: &'a str) -> Act<'a> {
        Act {
            principal: &self.identity.principal,
            credential: &self.identity.credential,
            action: self.action,
            object: &self.object,
            source: self.source,
            request_id,
        }
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.ended {
            self.auth.audit().end(self.act(""), AuditOutcome::Unknown, "");
        }
    }
}

/// The response to a request that is denied; records the denial. `identity` is that of the client, if its credential is valid.
pub(super) fn deny(
    auth: &Authenticator,
    request: &Request,
    legacy: bool,
    denial: Denial,
    identity: Option<&Identity>,
) -> Response {
    let mut response = if legacy { denial.into_legacy_error() } else { denial.into_response() };
    ensure_request_id(&mut response);
    let object = format!("{} {}", request.method(), request.uri().path());
    let source = source(request);
    let act = Act { source, request_id: request_id(&response), ..Act::of_process("authenticate", &object) };
    auth.record_denial(denial, identity, act);
    response
}

fn source(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<Peer>().map(|peer| peer.0)
}

/// Gives a response a request id, if it has none.
fn ensure_request_id(response: &mut Response) {
    if !response.headers().contains_key(REQUEST_ID)
        && let Ok(id) = HeaderValue::try_from(Uuid::now_v7().hyphenated().to_string())
    {
        response.headers_mut().insert(REQUEST_ID, id);
    }
}

fn request_id(response: &Response) -> &str {
    response.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use http::StatusCode;

    use super::super::Access;
    use super::*;
    use crate::Problem;
    use crate::http::legacy_error;

    #[test]
    fn the_outcome_follows_from_the_response() {
        let (auth, recorded) = (Authenticator::off(), Arc::new(Mutex::new(Vec::new())));
        let seen = recorded.clone();
        auth.audit().attach(
            "i".into(),
            Box::new(move |record| {
                seen.lock().unwrap().push((record.outcome, record.code.to_owned()));
                Box::pin(std::future::ready(true))
            }),
        );
        let refusal = |code| Refusal::new(code, "");
        let problem = |code| Problem::from(refusal(code)).into_response();
        let legacy = |code| legacy_error(&refusal(code));
        for (administrative, mut response, outcome, code) in [
            (false, legacy(Code::OutcomeUnknown), AuditOutcome::Unknown, "outcome-unknown"),
            (false, legacy(Code::Exists), AuditOutcome::Refused, "exists"),
            (false, problem(Code::Unavailable), AuditOutcome::Refused, "unavailable"),
            (true, problem(Code::Unavailable), AuditOutcome::Unknown, "unavailable"),
            (true, problem(Code::InvalidField), AuditOutcome::Refused, "invalid-field"),
            (true, StatusCode::INTERNAL_SERVER_ERROR.into_response(), AuditOutcome::Unknown, "500"),
            (true, StatusCode::NO_CONTENT.into_response(), AuditOutcome::Done, ""),
        ] {
            let recording = Recording {
                auth: auth.clone(),
                identity: Identity::anonymous(),
                action: "admin",
                object: "/admin/new".into(),
                source: None,
                administrative,
                ended: false,
            };
            recording.end(&mut response);
            assert_eq!(recorded.lock().unwrap().pop(), Some((outcome, code.to_owned())));
            assert!(response.headers().contains_key(REQUEST_ID));
        }
    }

    #[test]
    fn everything_that_manages_is_recorded_and_nothing_that_is_hot() {
        let mut left_out = Vec::new();
        for row in routes::ROUTES {
            for method in row.methods.iter().filter(|method| !method.is_safe() && **method != Method::POST) {
                assert!(action(method, row.path, row.path).is_some(), "{method} {}", row.path);
            }
            if row.methods.contains(&Method::POST) && action(&Method::POST, row.path, row.path).is_none() {
                left_out.push(row.path);
            }
            assert_eq!(action(&Method::GET, row.path, row.path), None, "{}", row.path);
            assert!(row.access != Access::Open || row.methods.iter().all(Method::is_safe), "nobody would be recorded");
        }
        let hot = [
            "/analytics",
            "/analytics/batch",
            "/v1/topics/{topic}/messages",
            "/v1/topics/{topic}/messages:batch",
            SUBSCRIPTION,
            "/message/publish/{topic}",
            "/message/ack/{topic}",
        ];
        assert_eq!(left_out, hot);
        let verb = |path: &str| action(&Method::POST, SUBSCRIPTION, path);
        assert_eq!(verb("/v1/topics/t/subscriptions/s:seek"), Some("subscription.seek"));
        assert_eq!(verb("/v1/topics/t/subscriptions/s%3Arotate-secret"), Some("subscription.rotate-secret"));
        assert_eq!(verb("/v1/topics/t/subscriptions/s:%73eek"), Some("subscription.seek"), "as the router reads it");
        assert_eq!(verb("/v1/topics/t/subscriptions/s:ack"), None);
        let redrive = format!("{DEAD_LETTERS}%3Aredrive");
        assert_eq!(action(&Method::POST, &redrive, &redrive), Some("subscription.redrive"));
        let register = "/old/topic/register/{topic}";
        assert_eq!(action(&Method::POST, register, register), Some("topic.create"));
        assert_eq!(action(&Method::PUT, "/admin/rebuild", "/admin/rebuild"), Some("store.rebuild"));
        assert_eq!(action(&Method::POST, "/admin/new", "/admin/new"), Some("admin"));
    }
}
