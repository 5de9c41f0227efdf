//! `Host` (RFC 9112, 3.2): one valid name of the server in each request of HTTP/1.1.

use ::http::header::HOST;
use ::http::uri::Authority;
use ::http::{Request, Version};
use millrace_contracts::{Code, Refusal};

/// Refuses a request of HTTP/1.1 without `Host`, and any with two, an invalid one, or one that contradicts `:authority`.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), Refusal> {
    let refuse = |detail: &'static str| Err(Refusal::new(Code::BadRequest, detail).field("host"));
    let mut hosts = request.headers().get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        return if request.version() == Version::HTTP_11 { refuse("a request has a Host") } else { Ok(()) };
    };
    if hosts.next().is_some() {
        return refuse("a request has one Host");
    }
    if request.uri().authority().is_none() && is_plain(host.as_bytes()) {
        return Ok(());
    }
    match authority(host.as_bytes()) {
        None => refuse("Host is not a host with an optional port"),
        Some(host) if request.version() == Version::HTTP_2 && request.uri().authority().is_some_and(|a| *a != host) => {
            refuse("Host differs from :authority")
        }
        Some(_) => Ok(()),
    }
}

/// Whether this is a name or an IPv4 address with an optional port, as almost every request has it: [`authority`] without
/// its cost. False for other valid hosts, too.
fn is_plain(text: &[u8]) -> bool {
    let name = text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.')).count();
    match &text[name..] {
        _ if name == 0 => false,
        [] => true,
        [b':', port @ ..] if port.iter().all(u8::is_ascii_digit) => {
            str::from_utf8(port).is_ok_and(|port| port.parse::<u16>().is_ok())
        }
        _ => false,
    }
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
            assert!(authority(invalid.as_bytes()).is_none() && !is_plain(invalid.as_bytes()), "{invalid}");
        }
    }

    proptest! {
        #[test]
        fn what_is_plain_is_a_host(text in "[a-b0-9.:@%/\\[\\]-]{0,9}") {
            prop_assert!(!is_plain(text.as_bytes()) || authority(text.as_bytes()).is_some());
        }
    }

    #[test]
    fn the_usual_hosts_are_plain() {
        for usual in ["localhost", "localhost:8080", "127.0.0.1:9081", "millrace.example", "millrace-1.example:443"] {
            assert!(is_plain(usual.as_bytes()), "{usual}");
        }
    }
}
