//! `Host` (RFC 9112, 3.2): one valid name of the server in each request of HTTP/1.1, and one that the listener serves.

use std::net::IpAddr;
use std::sync::Arc;

use ::http::header::HOST;
use ::http::uri::Authority;
use ::http::{Request, Version};
use metrics::counter;
use millrace_contracts::{Code, Refusal, metric};

/// The hosts that a listener serves. A page of another site can give its own name the address of this machine, and a browser
/// here then sends its requests to listeners on loopback; but their host is the name of the page.
#[derive(Debug, Clone, Default)]
pub enum Hosts {
    /// Every host.
    #[default]
    Any,
    /// `localhost`, addresses, and these names; the health of any.
    Known(Arc<[String]>),
    /// `localhost` and addresses of this machine.
    Local,
}

impl Hosts {
    /// Whether the listener serves a host. Only browsers send requests of others, and they always name one.
    fn serve(&self, host: &str, health: bool) -> bool {
        let address = || host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        // The usual address, too, without the cost of parsing it.
        let is_localhost = || host == "127.0.0.1" || host.eq_ignore_ascii_case("localhost");
        match self {
            Self::Any => true,
            Self::Known(names) => {
                let is_known = || names.iter().any(|name| name.eq_ignore_ascii_case(host));
                health || is_localhost() || address().is_ok() || is_known()
            }
            Self::Local => is_localhost() || address().is_ok_and(|address| address.is_loopback()),
        }
    }

    fn check(&self, host: &str, health: bool) -> Result<(), Refusal> {
        if self.serve(host, health) {
            return Ok(());
        }
        counter!(metric::AUTH_DENIED.name, "reason" => "host").increment(1);
        let detail = match self {
            Self::Any | Self::Local => "this listener serves requests to this machine's own names",
            Self::Known(_) => {
                "without authentication this listener serves localhost, IP addresses and auth.allowed_hosts"
            }
        };
        Err(Refusal::new(Code::Forbidden, detail).field("host"))
    }
}

/// Refuses a request of HTTP/1.1 without `Host`, any with two, an invalid one, or one that contradicts `:authority`, and one
/// to a host that is not served: that of its target, or else its `Host`.
pub(super) fn check<B>(request: &Request<B>, hosts: &Hosts, health: bool) -> Result<(), Refusal> {
    let refuse = |detail: &'static str| Err(Refusal::new(Code::BadRequest, detail).field("host"));
    let mut named = request.headers().get_all(HOST).iter();
    let target = request.uri().authority();
    let Some(host) = named.next() else {
        return match target {
            _ if request.version() == Version::HTTP_11 => refuse("a request has a Host"),
            Some(target) => hosts.check(target.host(), health),
            None => Ok(()),
        };
    };
    if named.next().is_some() {
        return refuse("a request has one Host");
    }
    if target.is_none()
        && let Some(name) = plain(host.as_bytes())
    {
        return hosts.check(name, health);
    }
    match authority(host.as_bytes()) {
        None => refuse("Host is not a host with an optional port"),
        Some(host) if request.version() == Version::HTTP_2 && target.is_some_and(|target| *target != host) => {
            refuse("Host differs from :authority")
        }
        Some(host) => hosts.check(target.unwrap_or(&host).host(), health),
    }
}

/// The host, if this is a name or an IPv4 address with an optional port, as almost every request has it: [`authority`]
/// without its cost. `None` for other valid hosts, too.
fn plain(text: &[u8]) -> Option<&str> {
    let name = text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')).count();
    let is_plain = match &text[name..] {
        _ if name == 0 => false,
        [] => true,
        [b':', port @ ..] if port.iter().all(u8::is_ascii_digit) => {
            str::from_utf8(port).is_ok_and(|port| port.parse::<u16>().is_ok())
        }
        _ => false,
    };
    str::from_utf8(&text[..name]).ok().filter(|_| is_plain)
}

/// A host with an optional port.
fn authority(text: &[u8]) -> Option<Authority> {
    let authority = Authority::try_from(text).ok()?;
    let whole = match authority.as_str().strip_prefix(authority.host())? {
        "" | ":" => true,
        _ => authority.port_u16().is_some(),
    };
    // User information would be part of the string before the host.
    (whole && !authority.host().is_empty()).then_some(authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for valid in ["a", "a.example:80", "127.0.0.1", "127.0.0.1:9081", "[::1]", "[::1]:9081", "a:"] {
            assert!(authority(valid.as_bytes()).is_some(), "{valid}");
        }
        for invalid in ["", ":80", "a:b", "a:70000", "u@a", "a b", "a/b", "[::1", "a,b@c", "a\tb"] {
            assert!(authority(invalid.as_bytes()).is_none() && plain(invalid.as_bytes()).is_none(), "{invalid}");
        }
    }

    proptest! {
        #[test]
        fn what_is_plain_is_a_host(text in "[a-b0-9.:@%/\\[\\]-]{0,9}") {
            if let Some(host) = plain(text.as_bytes()) {
                let authority = authority(text.as_bytes());
                prop_assert_eq!(authority.as_ref().map(Authority::host), Some(host));
            }
        }
    }

    #[test]
    fn the_usual_hosts_are_plain() {
        for usual in ["localhost", "localhost:8080", "127.0.0.1:9081", "millrace.example", "millrace-1.example:443"] {
            assert!(plain(usual.as_bytes()).is_some(), "{usual}");
        }
    }
}
