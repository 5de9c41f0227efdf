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
        let addresses = match header {
            ForwardingHeader::XForwardedFor => listed(value.as_bytes()),
            ForwardingHeader::Forwarded => forwarded(value.as_bytes()),
        };
        for address in addresses {
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

/// The addresses of `X-Forwarded-For`, from the right.
fn listed(text: &[u8]) -> Vec<Option<IpAddr>> {
    text.rsplit(|&byte| byte == b',').map(|address| node(str::from_utf8(address).ok()?)).collect()
}

/// The parameters `for` of `Forwarded`, one for each element, from the right.
fn forwarded(text: &[u8]) -> Vec<Option<IpAddr>> {
    let of_element = |element: &[u8]| {
        let pairs = split_from_right(element, b';').into_iter();
        let mut pairs = pairs.filter_map(|pair| str::from_utf8(pair).ok()?.split_once('='));
        let (_, value) = pairs.find(|(name, _)| name.trim().eq_ignore_ascii_case("for"))?;
        let value = value.trim();
        node(value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value))
    };
    split_from_right(text, b',').into_iter().map(of_element).collect()
}

/// The parts of a text between separators that stand in no quoted string, from the right. A client writes left of the
/// proxies: read from the left, a quote that it leaves open would include the separators of theirs.
fn split_from_right(text: &[u8], separator: u8) -> Vec<&[u8]> {
    let (mut parts, mut end, mut quoted) = (Vec::new(), text.len(), false);
    for (at, &byte) in text.iter().enumerate().rev() {
        if byte == separator && !quoted {
            parts.push(&text[at + 1..end]);
            end = at;
        }
        quoted ^= byte == b'"' && !(quoted && is_escaped(&text[..at]));
    }
    parts.push(&text[..end]);
    parts
}

/// Whether the character behind this part of a quoted string belongs to a backslash: behind an odd number of them.
fn is_escaped(before: &[u8]) -> bool {
    before.iter().rev().take_while(|&&byte| byte == b'\\').count() % 2 == 1
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
    use ::http::HeaderValue;

    use super::*;
    use crate::net::ProxyConfig;

    fn client(header: ForwardingHeader, peer: &str, lines: &[(&'static str, &str)]) -> String {
        let networks = ["10.0.0.0/8", "2001:db8::/32"].map(|network| network.parse().unwrap());
        let config = ProxyConfig { trusted_networks: networks.to_vec(), forwarding_header: header };
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
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
        assert_eq!(of("10.0.0.1", &["é", "é, 192.0.2.1, 10.0.0.8"]), "192.0.2.1", "the client has written é");
        assert_eq!(of("10.0.0.1", &["192.0.2.1, é, 10.0.0.8"]), "10.0.0.8");
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
        assert_eq!(of("for=192.0.2.43;host=\"a\\\\\", for=10.0.0.3;host=é"), "192.0.2.43");
        for hidden in
            ["for=unknown", "for=_hidden", "proto=https", "for=1.1.1.1, for=\"_gazonk\"", "for=\"1.1.1.1", "for=é"]
        {
            assert_eq!(of(hidden), "10.0.0.1", "{hidden}");
        }
    }

    #[test]
    fn no_quote_of_a_client_swallows_what_proxies_append() {
        for own in ["for=1.1.1.1;x=\"", "for=\"1.1.1.1", "x=\"\\", "x=\"\\\"", "\"\"\"", "é", ";,=\""] {
            for appended in ["for=192.0.2.43", "for=\"192.0.2.43:80\"", "for=192.0.2.43;host=\"a,b\", for=10.0.0.3"] {
                let line = format!("{own}, {appended}");
                let client = client(ForwardingHeader::Forwarded, "10.0.0.1", &[("forwarded", &line)]);
                assert_eq!(client, "192.0.2.43", "{line}");
            }
        }
    }

    #[test]
    fn only_one_header_counts() {
        let lines = [("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "2.2.2.2")];
        assert_eq!(client(ForwardingHeader::Forwarded, "10.0.0.1", &lines), "1.1.1.1");
        assert_eq!(client(ForwardingHeader::XForwardedFor, "10.0.0.1", &lines), "2.2.2.2");
    }
}
