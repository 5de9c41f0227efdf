//! Where push may connect to: no address of this machine or of a private network, unless the operator allows it.
//!
//! A name is resolved at each connection, and every address it has must be allowed: the connection goes to one of these,
//! with no second look-up in between. Addresses in a URL do not pass the resolver, so they are checked by themselves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ipnet::IpNet;
use millrace_contracts::{Code, Refusal};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Timeout of resolving a name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Networks that no endpoint is in: of this machine, private, shared, reserved, multicast, or tunnels into such.
static FORBIDDEN: LazyLock<Vec<IpNet>> = LazyLock::new(|| {
    let text = "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 \
        192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4 \
        ::/8 64:ff9b:1::/48 100::/64 2001::/23 2001:db8::/32 2002::/16 3fff::/20 5f00::/16 fc00::/7 fe80::/10 fec0::/10 \
        ff00::/8";
    text.split_ascii_whitespace().map(|net| net.parse().expect("each of them is a network")).collect()
});

/// NAT64 (RFC 6052): judged by the IPv4 address inside.
fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V6(address) if address.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0] => {
            let [.., a, b, c, d] = address.octets();
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

/// Which addresses push may connect to.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    /// Networks that are allowed although they are forbidden by default.
    pub allowed: Vec<IpNet>,
}

/// A connection that is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not an address that push may connect to; delivery.allow_targets can allow it")]
pub(crate) struct BlockedTarget(IpAddr);

impl Targets {
    /// Whether push may connect to an address.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), BlockedTarget> {
        let within = |nets: &[IpNet], address: IpAddr| nets.iter().any(|net| net.contains(&address));
        let judged = embedded_v4(address).map_or(address, IpAddr::V4);
        if within(&FORBIDDEN, judged) && !within(&self.allowed, judged) {
            return Err(BlockedTarget(address));
        }
        Ok(())
    }

    /// Checks an endpoint's URL and, if its host is an address, that one.
    pub(crate) fn check_url(&self, text: &str) -> Result<Url, Refusal> {
        let wrong = |detail: &str| Refusal::new(Code::InvalidField, detail.to_owned()).field("push.url");
        let url = Url::parse(text).map_err(|_| wrong("must be an http or https URL"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong("must be an http or https URL"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("must not have a user or password; use push.headers"));
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) | None => None,
        };
        let blocked = |blocked: BlockedTarget| Refusal::new(Code::BlockedTarget, blocked.to_string()).field("push.url");
        address.map_or(Ok(()), |address| self.check(address)).map_err(blocked)?;
        Ok(url)
    }

    /// Resolves a URL's name, if it has one, and checks every address.
    pub(crate) async fn check_name(&self, url: &Url) -> Result<(), Refusal> {
        let Some(Host::Domain(name)) = url.host() else { return Ok(()) };
        match self.resolve(name).await {
            // A name that does not resolve yet may later.
            Ok(_) | Err(ResolveError::Dns(_) | ResolveError::Timeout) => Ok(()),
            Err(ResolveError::Blocked(blocked)) => {
                Err(Refusal::new(Code::BlockedTarget, blocked.to_string()).field("push.url"))
            }
        }
    }

    /// The addresses of a URL's host; none if it has none, or one that is not allowed.
    pub(crate) async fn addresses(&self, url: &str) -> Vec<IpAddr> {
        let Ok(url) = self.check_url(url) else { return Vec::new() };
        match url.host() {
            Some(Host::Ipv4(address)) => vec![address.into()],
            Some(Host::Ipv6(address)) => vec![address.into()],
            Some(Host::Domain(name)) => {
                let resolved = self.resolve(name).await.unwrap_or_default();
                resolved.into_iter().map(|address| address.ip()).collect()
            }
            None => Vec::new(),
        }
    }

    async fn resolve(&self, name: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        let looked_up = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((name, 0))).await;
        let addresses: Vec<SocketAddr> = looked_up.map_err(|_| ResolveError::Timeout)??.collect();
        for address in &addresses {
            self.check(address.ip())?;
        }
        Ok(addresses)
    }
}

/// A name did not resolve to addresses that are allowed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error(transparent)]
    Blocked(#[from] BlockedTarget),
    #[error(transparent)]
    Dns(#[from] std::io::Error),
    #[error("the name did not resolve within {RESOLVE_TIMEOUT:?}")]
    Timeout,
}

/// The resolver of the HTTP client.
pub(crate) struct GuardedResolver(pub(crate) Arc<Targets>);

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let targets = self.0.clone();
        Box::pin(async move {
            let addresses = targets.resolve(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_blocked(targets: &Targets, url: &str) {
        let refusal = targets.check_url(url).unwrap_err();
        assert_eq!((refusal.code, refusal.field.as_deref()), (Code::BlockedTarget, Some("push.url")), "{url}");
        assert!(refusal.detail.contains("delivery.allow_targets"), "{refusal}");
    }

    /// Notations that parsers read as an address of this machine or of a private network.
    #[test]
    fn forbidden_addresses_are_refused_in_every_notation() {
        let targets = Targets::default();
        for host in [
            // decimal, octal, hexadecimal, mixed, with fewer parts, with a dot at the end
            "127.0.0.1",
            "2130706433",
            "017700000001",
            "0x7f000001",
            "0X7F000001",
            "0x7f.0.0.1",
            "0177.0.0.1",
            "0x7f.0.1",
            "0177.1",
            "127.1",
            "127.0.1",
            "127.0.0.1.",
            "0",
            "0x0",
            "2852039166",
            "0xa9fea9fe",
            "0251.0376.0251.0376",
            "169.254.43518",
            "169.16689662",
            // percent-encoded, in full width, in circles, with an ideographic full stop
            "%31%32%37.0.0.1",
            "127%2e0%2e0%2e1",
            "１２７.0.0.1",
            "①②⑦.⓪.⓪.①",
            "127。0。0。1",
            // IPv6 with IPv4 inside: mapped, compatible, SIIT, NAT64, 6to4, Teredo
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::FFFF:A9FE:A9FE]",
            "[0:0:0:0:0:ffff:a9fe:a9fe]",
            "[::127.0.0.1]",
            "[::ffff:0:127.0.0.1]",
            "[64:ff9b::127.0.0.1]",
            "[64:ff9b::a9fe:a9fe]",
            "[0064:ff9b:0:0:0:0:0a00:0001]",
            "[64:ff9b:1::a9fe:a9fe]",
            "[2002:7f00:1::]",
            "[2001:0:7f00:1::]",
            // IPv6 otherwise
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::]",
            "[fe80::1]",
            "[fec0::1]",
            "[fd00:ec2::254]",
            "[ff02::1]",
        ] {
            for rest in ["", "/", ":80/", ":8080/latest/meta-data", "?x", "#@a.example/", "/../"] {
                assert_blocked(&targets, &format!("http://{host}{rest}"));
                assert_blocked(&targets, &format!("https://{host}{rest}"));
            }
        }
        for url in
            ["http:\\\\127.0.0.1\\", "http:127.0.0.1", "http:///127.0.0.1/", " http://127.0.0.1/", "hTTp://12\t7.0.0.1"]
        {
            assert_blocked(&targets, url);
        }
    }

    /// The first and the last address of each network, and its neighbors.
    #[test]
    fn forbidden_networks_end_where_they_should() {
        let targets = Targets::default();
        let blocked = |address: &str| targets.check(address.parse().unwrap()).is_err();
        for edges in [
            ["", "0.0.0.0", "0.255.255.255", "1.0.0.0"],
            ["9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0"],
            ["100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0"],
            ["126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0"],
            ["169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0"],
            ["172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0"],
            ["191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0"],
            ["192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0"],
            ["192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0"],
            ["192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0"],
            ["198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0"],
            ["198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0"],
            ["203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0"],
            ["223.255.255.255", "224.0.0.0", "255.255.255.255", ""],
            ["", "::", "ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "101::"],
            ["", "64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", ""],
            ["2000::", "2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::"],
            ["2001:db7:ffff::", "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::"],
            ["2001:ffff::", "2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "2003::"],
            ["3ffe:ffff::", "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::"],
            ["5eff:ffff::", "5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "5f01::"],
            ["fbff:ffff::", "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe00::"],
            ["fe7f:ffff::", "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""],
            ["", "fec0::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ""],
            // NAT64 is judged by the IPv4 address inside.
            ["64:ff9b::9.255.255.255", "64:ff9b::10.0.0.0", "64:ff9b::10.255.255.255", "64:ff9b::11.0.0.0"],
        ] {
            let [before, first, last, after] = edges;
            assert!(blocked(first) && blocked(last), "{edges:?}");
            for outside in [before, after].into_iter().filter(|address| !address.is_empty()) {
                assert!(!blocked(outside), "{outside}");
            }
        }
        assert!(blocked("100::1") && !blocked("100:0:0:1::1"), "the prefix for discarding");
    }

    #[test]
    fn endpoints_have_http_urls_without_a_user_at_any_port() {
        let targets = Targets::default();
        for url in [
            "http://93.184.216.34/",
            "http://93.184.216.34:1/",
            "https://93.184.216.34:65535/",
            "https://[2606:4700::1111]/x",
            "http://[64:ff9b::5db8:d822]/",
            "https://a.example/",
            "https://a.example:8443/",
            // A name, whatever it looks like: its addresses are judged when it is resolved.
            "http://127.0.0.1.a.example/",
        ] {
            assert!(targets.check_url(url).is_ok(), "{url}");
        }
        for url in [
            "ftp://a.example/",
            "gopher://a.example/",
            "a.example",
            "http://",
            "http://a.example:65536/",
            "http://a.example:x/",
            "http://256.0.0.1/",
            "http://127.0.0.0.1/",
            "http://[fe80::1%25eth0]/",
            "http://user@a.example/",
            "http://:p@a.example/",
            "http://93.184.216.34@127.0.0.1/",
            "file:///etc/passwd",
            "data:,x",
        ] {
            assert_eq!(targets.check_url(url).unwrap_err().code, Code::InvalidField, "{url}");
        }
    }

    #[test]
    fn a_network_is_allowed_in_the_notation_that_it_was_allowed_in() {
        let targets = Targets { allowed: vec!["127.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap()] };
        for url in ["http://127.0.0.1/", "http://0x7f.1:8080/", "http://10.1.255.255/", "http://[64:ff9b::10.1.0.1]/"] {
            assert!(targets.check_url(url).is_ok(), "{url}");
        }
        for url in ["http://10.2.0.1/", "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[64:ff9b::10.2.0.1]/"] {
            assert_blocked(&targets, url);
        }
    }

    #[tokio::test]
    async fn names_are_judged_by_their_addresses() {
        let url = Url::parse("http://localhost/").unwrap();
        assert_eq!(Targets::default().check_name(&url).await.unwrap_err().code, Code::BlockedTarget);
        let allowed = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        assert!(Targets { allowed }.check_name(&url).await.is_ok());
    }
}
