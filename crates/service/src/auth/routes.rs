//! The table of routes and the scopes that they need. What is not in it needs `admin`.

use std::borrow::Cow;

use http::Method;

use super::Scope;
use super::Scope::{CountsRead, EventsWrite, TopicsManage, TopicsPublish, TopicsSubscribe};

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    Open,
    /// Any valid credential.
    Credential,
    /// A credential with one of these scopes.
    Scopes(&'static [Scope]),
    /// As [`Access::Scopes`] with `events:write`, or a key of scope `pixel:write` in the parameter `key`.
    Pixel,
}

/// The access of one route.
#[derive(Debug, Clone, Copy)]
pub struct RouteAccess {
    /// Its methods; HEAD goes with GET.
    pub methods: &'static [Method],
    /// Its path, as the router has it.
    pub path: &'static str,
    /// What it needs.
    pub access: Access,
}

const GET: &[Method] = &[Method::GET];
const POST: &[Method] = &[Method::POST];
const ANY_OF_TOPICS: Access = Access::Scopes(&[TopicsManage, TopicsPublish, TopicsSubscribe]);
const MANAGE: Access = Access::Scopes(&[TopicsManage]);
const PUBLISH: Access = Access::Scopes(&[TopicsPublish]);
/// Of a pull: a GET that hands messages out for the time of their lease.
pub(super) const PULL: Access = Access::Scopes(&[TopicsSubscribe]);
const SUBSCRIPTION: Access = Access::Scopes(&[TopicsSubscribe, TopicsManage]);
const READ: Access = Access::Scopes(&[CountsRead]);
const WRITE: Access = Access::Scopes(&[EventsWrite]);

const fn row(methods: &'static [Method], path: &'static str, access: Access) -> RouteAccess {
    RouteAccess { methods, path, access }
}

/// The paths of the earlier system, which stand below a prefix that an operator sets.
const LEGACY: [&str; 6] = [
    "/topic/register/{topic}",
    "/topic/subscribe/{topic}",
    "/message/publish/{topic}",
    "/message/get/{topic}",
    "/message/ack/{topic}",
    "/health",
];

/// Every route of the public listeners. A path with a verb (`{subscription}:ack`) has the row of the path without it, all
/// below `/registry` that of `/registry`, and one of the earlier system that of the path without the prefix.
pub const ROUTES: &[RouteAccess] = &[
    row(GET, "/livez", Access::Open),
    row(GET, "/readyz", Access::Open),
    row(GET, "/openapi.json", Access::Credential),
    row(GET, "/docs", Access::Credential),
    row(GET, "/docs/{file}", Access::Credential),
    // the write side
    row(POST, "/analytics", WRITE),
    row(POST, "/analytics/batch", WRITE),
    row(GET, "/pixel.gif", Access::Pixel),
    row(GET, "/log", Access::Credential),
    row(GET, "/topics", ANY_OF_TOPICS),
    row(GET, "/topics/{file}", ANY_OF_TOPICS),
    row(GET, "/v1/topics", ANY_OF_TOPICS),
    row(GET, "/v1/topics/{topic}", ANY_OF_TOPICS),
    row(&[Method::PUT, Method::PATCH, Method::DELETE], "/v1/topics/{topic}", MANAGE),
    row(&[Method::PUT, Method::DELETE], "/v1/topics/{topic}/grants/{principal}", MANAGE),
    row(POST, "/v1/topics/{topic}/messages", PUBLISH),
    row(POST, "/v1/topics/{topic}/messages:batch", PUBLISH),
    row(GET, "/v1/topics/{topic}/subscriptions", SUBSCRIPTION),
    row(
        &[Method::GET, Method::PUT, Method::PATCH, Method::DELETE, Method::POST],
        "/v1/topics/{topic}/subscriptions/{subscription}",
        SUBSCRIPTION,
    ),
    row(GET, "/v1/topics/{topic}/subscriptions/{subscription}/messages", PULL),
    row(GET, "/v1/topics/{topic}/subscriptions/{subscription}/attempts", SUBSCRIPTION),
    row(GET, "/v1/topics/{topic}/subscriptions/{subscription}/dead-letters", SUBSCRIPTION),
    row(POST, "/v1/topics/{topic}/subscriptions/{subscription}/dead-letters:redrive", SUBSCRIPTION),
    row(GET, "/v1/topics/{topic}/subscriptions/{subscription}/redrives/{redrive}", SUBSCRIPTION),
    // the earlier system's calls
    row(POST, "/topic/register/{topic}", MANAGE),
    row(POST, "/topic/subscribe/{topic}", PULL),
    row(POST, "/message/publish/{topic}", PUBLISH),
    row(GET, "/message/get/{topic}", PULL),
    row(POST, "/message/ack/{topic}", PULL),
    row(GET, "/health", Access::Open),
    // the read side
    row(GET, "/", READ),
    row(GET, "/assets/{file}", READ),
    row(GET, "/status", READ),
    row(GET, "/analytics", READ),
    row(GET, "/analytics/range", READ),
    row(GET, "/analytics/live", READ),
    row(GET, "/registry", Access::Credential),
];

/// What a request to the route with this path needs.
pub fn access(method: &Method, path: &str) -> Access {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let path = path_of_row(path);
    let mut found = None;
    for row in ROUTES.iter().filter(|row| row.path == path) {
        if row.methods.contains(method) {
            return row.access;
        }
        found = Some(Access::Credential);
    }
    // The path has no such method: who is known may learn that.
    found.unwrap_or(Access::Scopes(&[Scope::Admin]))
}

/// The path of the earlier system that a path is, without the prefix.
pub(super) fn legacy(path: &str) -> Option<&'static str> {
    LEGACY.into_iter().find(|known| path.ends_with(known))
}

/// Whether each request with this access has an event or a message.
pub(super) fn has_event(access: Access) -> bool {
    matches!(access, WRITE | PUBLISH | Access::Pixel)
}

/// Whether pages of other origins may use the routes of a path: those of events and counts.
pub(crate) fn is_for_pages(path: &str) -> bool {
    matches!(path, "/analytics" | "/analytics/batch" | "/pixel.gif" | "/analytics/range" | "/analytics/live")
}

/// The path of the row that a path has. The colon of a verb may be percent-encoded.
fn path_of_row(path: &str) -> Cow<'_, str> {
    if path.starts_with("/registry/") {
        return Cow::Borrowed("/registry");
    }
    if let Some(path) = legacy(path) {
        return Cow::Borrowed(path);
    }
    let path =
        if path.contains('%') { Cow::Owned(path.replace("%3A", ":").replace("%3a", ":")) } else { Cow::Borrowed(path) };
    match path.rfind('}') {
        Some(at) if path[at + 1..].starts_with(':') => Cow::Owned(path[..=at].to_owned()),
        _ => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_has_the_row_of_its_path_and_a_stranger_needs_admin() {
        let verb = "/v1/topics/{topic}/subscriptions/{subscription}:ack";
        assert_eq!(access(&Method::POST, verb), SUBSCRIPTION);
        assert_eq!(access(&Method::POST, "/v1/topics/{topic}/messages%3Abatch"), PUBLISH);
        assert_eq!(access(&Method::HEAD, "/analytics"), READ);
        assert_eq!(access(&Method::PUT, "/analytics"), Access::Credential);
        assert_eq!(access(&Method::GET, "/registry/mode"), Access::Credential);
        assert_eq!(access(&Method::GET, "/new"), Access::Scopes(&[Scope::Admin]));
        assert_eq!(access(&Method::POST, "/old/v1/message/publish/{topic}"), PUBLISH);
        assert_eq!(
            (access(&Method::GET, "/health"), access(&Method::GET, "/old/health")),
            (Access::Open, Access::Open)
        );
    }

    #[test]
    fn a_route_has_one_row_for_a_method() {
        for (at, row) in ROUTES.iter().enumerate() {
            let same = ROUTES[..at].iter().filter(|other| other.path == row.path);
            assert!(same.flat_map(|other| other.methods).all(|method| !row.methods.contains(method)), "{}", row.path);
        }
    }
}
