//! What these calls share: who makes one, what it accepts, and the form of answers and errors.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::header::{ACCEPT_CHARSET, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};
use mediatype::MediaType;
use mediatype::names::{APPLICATION, JSON};
use millrace_contracts::topics::{Name, Principal};
use millrace_contracts::{Code, Refusal};
use millrace_service::auth::Identity;
use millrace_service::http::query_string::decode_segment;
use millrace_service::http::{Peer, legacy_error, negotiate};
use serde::Serialize;

use crate::topics::exchange::{Incoming, principal};

/// The media type of answers, as the earlier system wrote it.
const JSON_UTF8: &str = "application/json;charset=utf-8";

/// Why a call fails, for a person.
#[derive(Debug)]
pub(super) struct Failure(Refusal);

impl Failure {
    /// The status follows from the code.
    pub(super) fn new(code: Code, text: impl Into<Cow<'static, str>>) -> Self {
        Self(Refusal::new(code, text))
    }

    /// `Topic 'orders' is not registered` and the like.
    pub(super) fn of_topic(code: Code, topic: &Name, what: &str) -> Self {
        Self::new(code, format!("Topic '{topic}' is {what}"))
    }
}

impl From<Refusal> for Failure {
    fn from(mut refusal: Refusal) -> Self {
        if let Some(field) = &refusal.field
            && matches!(refusal.code, Code::InvalidField | Code::InvalidEncoding)
        {
            refusal.detail = format!("{field}: {}", refusal.detail).into();
        }
        Self(refusal)
    }
}

/// A response of these calls: never stored by a cache.
pub(super) fn respond(result: Result<Response, Failure>) -> Response {
    let mut response = result.unwrap_or_else(|failure| legacy_error(&failure.0));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// JSON with the members in their order.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    text(status, JSON_UTF8, serde_json::to_vec(value).unwrap_or_default())
}

pub(super) fn text(status: StatusCode, media_type: &str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let media_type = HeaderValue::try_from(media_type).unwrap_or(HeaderValue::from_static(JSON_UTF8));
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

/// A name with a position in bytes.
pub(super) fn position(topic: &Name, position: u64) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        name: &'a Name,
        position: u64,
    }
    json(StatusCode::CREATED, &Body { name: topic, position })
}

/// Who makes a call, and about which topic.
pub(super) struct LegacyCall {
    pub(super) by: Principal,
    pub(super) topic: Name,
}

impl LegacyCall {
    /// Reads what every call has: the topic's name, what the client accepts, who it is.
    pub(super) fn of(request: &Incoming) -> Result<Self, Failure> {
        let segment = request.uri().path().rsplit('/').next().unwrap_or_default();
        let wrong = |why: String| Failure::new(Code::BadRequest, format!("topic: {why}"));
        let text = decode_segment(segment).map_err(|error| wrong(error.to_string()))?;
        let topic = Name::of_system(&text).map_err(|error| wrong(error.to_string()))?;
        acceptable(request.headers())?;
        Ok(Self { by: made_by(request)?, topic })
    }

    /// The name of the principal's subscription: the principal, with what names forbid percent-encoded.
    pub(super) fn subscription(&self) -> Result<Name, Failure> {
        let mut name = String::with_capacity(self.by.name.len() + 16);
        for c in self.by.name.chars() {
            // The percent sign too, so that no two principals have one name.
            if c != '%' && Name::of_system(c.encode_utf8(&mut [0; 4])).is_ok() {
                name.push(c);
            } else {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    let _ = write!(name, "%{byte:02X}");
                }
            }
        }
        let long = |_| Failure::new(Code::BadRequest, "the principal's name is too long for a subscription's");
        Name::parse(&name).map_err(long)
    }
}

/// The principal of a request; with authentication off the address, on this machine only.
fn made_by(request: &Incoming) -> Result<Principal, Failure> {
    let identity = request.extensions().get::<Arc<Identity>>();
    if identity.is_some_and(|identity| !identity.credential.is_empty()) {
        return Ok(principal(request));
    }
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0.to_canonical());
    let named = peer.filter(std::net::IpAddr::is_loopback).map(|address| format!("addr:{address}"));
    let why = "with authentication off only clients on the server's own machine are known";
    let name = named.ok_or_else(|| Failure::new(Code::Unauthenticated, why))?;
    Ok(Principal { name, admin: false })
}

/// Whether the client accepts what there is: JSON in UTF-8.
fn acceptable(headers: &HeaderMap) -> Result<(), Failure> {
    static AVAILABLE: [MediaType<'static>; 1] = [MediaType::new(APPLICATION, JSON)];
    if negotiate(headers, &AVAILABLE).is_none() {
        return Err(Failure::new(Code::NotAcceptable, "answers are application/json"));
    }
    let mut charsets = headers.get_all(ACCEPT_CHARSET).iter().filter_map(|value| value.to_str().ok());
    let utf8 = |text: &str| text.split(',').any(|range| is_utf8(range.split(';').next().unwrap_or_default().trim()));
    if headers.contains_key(ACCEPT_CHARSET) && !charsets.any(utf8) {
        return Err(Failure::new(Code::NotAcceptable, "answers are in utf-8"));
    }
    Ok(())
}

fn is_utf8(charset: &str) -> bool {
    charset == "*" || charset.eq_ignore_ascii_case("utf-8")
}

/// Refuses a body of another type than JSON, or in another charset than UTF-8.
pub(super) fn json_only(headers: &HeaderMap) -> Result<(), Failure> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut parts = given.split(';').map(str::trim);
    let json = parts.next().unwrap_or_default().eq_ignore_ascii_case("application/json");
    let utf8 = parts.filter_map(|parameter| parameter.split_once('=')).all(|(name, value)| {
        !name.trim().eq_ignore_ascii_case("charset") || value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    if json && utf8 {
        return Ok(());
    }
    Err(Failure::new(Code::UnsupportedMediaType, "a message is application/json in utf-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(path: &str, peer: &str) -> Result<LegacyCall, Failure> {
        let mut request = Incoming::new(Body::empty());
        *request.uri_mut() = path.parse().unwrap();
        request.extensions_mut().insert(Peer(peer.parse().unwrap()));
        LegacyCall::of(&request)
    }

    #[test]
    fn without_authentication_an_address_of_this_machine_is_the_principal() {
        for (peer, principal, subscription) in [
            ("127.0.0.1", "addr:127.0.0.1", "addr%3A127%2E0%2E0%2E1"),
            ("::ffff:127.0.0.2", "addr:127.0.0.2", "addr%3A127%2E0%2E0%2E2"),
            ("::1", "addr:::1", "addr%3A%3A%3A1"),
        ] {
            let made = of("/legacy/topic/register/a%C3%A4", peer).unwrap();
            assert_eq!((&*made.by.name, made.by.admin, made.topic.as_str()), (principal, false, "aä"));
            assert_eq!(made.subscription().unwrap().as_str(), subscription);
        }
        for peer in ["192.0.2.1", "::ffff:10.0.0.1", "2001:db8::1"] {
            assert_eq!(of("/topic/register/a", peer).map(drop).unwrap_err().0.code, Code::Unauthenticated, "{peer}");
        }
        assert_eq!(of("/topic/register/a.b", "::1").map(drop).unwrap_err().0.code, Code::BadRequest);
    }

    #[test]
    fn no_two_principals_have_one_subscription() {
        let named = |name: &str| {
            let by = Principal { name: name.into(), admin: false };
            LegacyCall { by, topic: Name::parse("t").unwrap() }.subscription().map_err(|failure| failure.0.code)
        };
        assert_eq!(named("key:a.b ü").unwrap().as_str(), "key%3Aa%2Eb%20ü");
        assert_ne!(named("key:a%2Eb"), named("key:a.b"));
        assert_eq!(named(&"x".repeat(128)), Err(Code::BadRequest));
    }
}
