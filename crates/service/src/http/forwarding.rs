//! The address of a client behind proxies.

use std::net::{IpAddr, SocketAddr};

use ::http::header::FORWARDED;
use ::http::{HeaderMap, HeaderName};

use crate::net::{ForwardingHeader, Proxies};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client of a request: that of the connection, or if that is a trusted proxy, the rightmost address
/// of the forwarding header that is not one. What stands left of it is of the client's own making.
pub(super) fn client_of(proxies: &Proxies, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut client = peer;
    if !proxies.trusts(peer) {
        return client;
    }
    let header = proxies.header();
    let name = match header {
        ForwardingHeader::XForwardedFor => X_FORWARDED_FOR,
        ForwardingHeader::Forwarded => FORWARDED,
    };
    for value in headers.get_all(name).iter().rev() {
        let Ok(text) = value.to_str() else { return client };
        let addresses = match header {
            ForwardingHeader::XForwardedFor => listed(text),
            ForwardingHeader::Forwarded => forwarded(text),
        };
        for address in addresses.into_iter().rev() {
            // A proxy that hides its client: nobody vouches for what is left of it.
            let Some(address) = address else { return client };
            client = address;
            if !proxies.trusts(address) {
                return client;
            }
        }
    }
    client
}

/// The addresses of `X-Forwarded-For`.
fn listed(text: &str) -> Vec<Option<IpAddr>> {
    text.split(',').map(node).collect()
}

/// The parameters `for` of `Forwarded`, one for each element.
fn forwarded(text: &str) -> Vec<Option<IpAddr>> {
    let of_element = |element: &str| {
        let mut pairs = split_unquoted(element, b';').into_iter().filter_map(|pair| pair.split_once('='));
        let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
        let value = value.trim();
        node(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
    };
    split_unquoted(text, b',').into_iter().map(of_element).collect()
}

/// The parts of a text between separators that stand in no quoted string.
fn split_unquoted(text: &str, separator: u8) -> Vec<&str> {
    let (mut parts, mut begin, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in text.bytes().enumerate() {
        if byte == separator && !quoted {
            parts.push(&text[begin..at]);
            begin = at + 1;
        }
        quoted ^= byte == b'"' && !escaped;
        escaped = quoted && byte == b'\\' && !escaped;
    }
    parts.push(&text[begin..]);
    parts
}

/// An address, with or without a port; IPv6 with a port, and in `Forwarded`, in brackets.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let address = text.parse().ok();
    let address = address.or_else(|| text.parse().ok().map(|socket: SocketAddr| socket.ip()));
    let address = address.or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok());
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::ProxyConfig;

    fn client(header: ForwardingHeader, peer: &str, lines: &[(&'static str, &str)]) -> String {
        let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap());
        let config = ProxyConfig { trusted_networks: networks.to_vec(), forwarding_header: header };
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        client_of(&Proxies::new(&config), peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn the_rightmost_address_that_is_no_proxy_is_the_client() {
        let of = |peer: &str, lines: &[&str]| {
            let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", *line)).collect();
            client(ForwardingHeader::XForwardedFor, peer, &lines)
        };
        assert_eq!(of("192.0.2.9", &["1.1.1.1"]), "192.0.2.9", "whoever connects directly states nothing");
        assert_eq!(of("10.0.0.1", &[]), "10.0.0.1");
        assert_eq!(of("10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(of("::ffff:10.0.0.1", &["192.0.2.1"]), "192.0.2.1");
        assert_eq!(of("10.0.0.1", &["1.1.1.1, 192.0.2.1,10.9.9.9"]), "192.0.2.1", "the client has written 1.1.1.1");
        assert_eq!(of("10.0.0.1", &["1.1.1.1", "192.0.2.1", "2001:db8::5"]), "192.0.2.1");
        assert_eq!(of("10.0.0.1", &["10.0.0.7, 10.0.0.8"]), "10.0.0.7", "a client among the proxies");
        assert_eq!(of("10.0.0.1", &["1.1.1.1, unknown, 10.0.0.8"]), "10.0.0.8");
        assert_eq!(of("10.0.0.1", &["192.0.2.1:4711"]), "192.0.2.1");
        assert_eq!(of("10.0.0.1", &["[2a00::1]:4711"]), "2a00::1");
        assert_eq!(of("10.0.0.1", &["2a00::1"]), "2a00::1");
        for garbage in ["", ",", "x", "192.0.2.1 1.1.1.1", "for=192.0.2.1"] {
            assert_eq!(of("10.0.0.1", &[garbage]), "10.0.0.1", "{garbage}");
        }
    }

    #[test]
    fn forwarded_is_read_as_its_rfc_has_it() {
        let of = |line: &str| client(ForwardingHeader::Forwarded, "10.0.0.1", &[("forwarded", line)]);
        assert_eq!(of("for=192.0.2.43"), "192.0.2.43");
        assert_eq!(of("For=\"[2a00::17]:4711\""), "2a00::17");
        assert_eq!(of("for=1.1.1.1;by=203.0.113.43, proto=https;for=192.0.2.60; by=10.1.1.1"), "192.0.2.60");
        assert_eq!(of("for=192.0.2.43, for=\"10.0.0.3:80\";host=\"a,b;c\\\",d\""), "192.0.2.43");
        for hidden in
            ["for=unknown", "for=_hidden", "proto=https", "for=1.1.1.1, for=\"_gazonk\"", "for=\"1.1.1.1, for=2.2.2.2"]
        {
            assert_eq!(of(hidden), "10.0.0.1", "{hidden}");
        }
    }

    #[test]
    fn only_one_header_counts() {
        let lines = [("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "2.2.2.2")];
        assert_eq!(client(ForwardingHeader::Forwarded, "10.0.0.1", &lines), "1.1.1.1");
        assert_eq!(client(ForwardingHeader::XForwardedFor, "10.0.0.1", &lines), "2.2.2.2");
    }
}
