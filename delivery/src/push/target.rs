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

    /// Notations that parsers read as an address of this machine or of a private network.
    #[test]
    fn forbidden_addresses_are_refused_in_every_notation() {
        let targets = Targets::default();
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://0.0.0.0/",
            "http://10.1.2.3:8080/",
            "http://169.254.169.254/latest/meta-data",
            "http://172.16.0.1/",
            "http://192.168.1.1/",
            "http://100.64.0.1/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://[::127.0.0.1]/",
            "http://[64:ff9b::127.0.0.1]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://[2002:7f00:1::]/",
            "http://１２７.0.0.1/",
        ] {
            let refusal = targets.check_url(url).unwrap_err();
            assert_eq!((refusal.code, refusal.field.as_deref()), (Code::BlockedTarget, Some("push.url")), "{url}");
            assert!(refusal.detail.contains("delivery.allow_targets"), "{refusal}");
        }
        for url in [
            "http://93.184.216.34/",
            "https://[2606:4700::1111]/x",
            "http://[64:ff9b::5db8:d822]/",
            "https://a.example/",
        ] {
            assert!(targets.check_url(url).is_ok(), "{url}");
        }
        for url in [
            "ftp://a.example/",
            "a.example",
            "http://",
            "http://user@a.example/",
            "http://:p@a.example/",
            "file:///etc/passwd",
        ] {
            assert_eq!(targets.check_url(url).unwrap_err().code, Code::InvalidField, "{url}");
        }
        let targets = Targets { allowed: vec!["127.0.0.0/8".parse().unwrap()] };
        assert!(targets.check_url("http://127.0.0.1/").is_ok());
        assert!(targets.check_url("http://10.0.0.1/").is_err());
    }

    #[tokio::test]
    async fn names_are_judged_by_their_addresses() {
        let url = Url::parse("http://localhost/").unwrap();
        assert_eq!(Targets::default().check_name(&url).await.unwrap_err().code, Code::BlockedTarget);
        let allowed = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        assert!(Targets { allowed }.check_name(&url).await.is_ok());
    }
}
