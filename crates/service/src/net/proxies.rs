//! Proxies and load balancers in front of listeners.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use millrace_base::{Bounds, Violation};
use ppp::v2::{Addresses, Command, Header};
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// Most networks: each is compared with the address of every request.
const MAX_NETWORKS: usize = 64;
/// Bytes of a PROXY header before its addresses, of which the last two are the length of the rest.
const FIXED: usize = 16;
/// Longest rest: addresses, and what a balancer adds about TLS.
const MAX_REST: usize = 4 << 10;
/// From the beginning of a connection to the end of its PROXY header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of proxies in front of the public listeners, section `[proxies]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProxyConfig {
    /// The networks of the proxies; none for no proxies.
    pub trusted_networks: Vec<IpNet>,
    /// The header to which each of them adds the address of its client. It is one alone: a proxy passes the other one on as a
    /// client has written it.
    pub forwarding_header: ForwardingHeader,
}

/// A header that proxies add addresses to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardingHeader {
    /// A list of addresses.
    #[default]
    XForwardedFor,
    /// RFC 7239.
    Forwarded,
}

impl ProxyConfig {
    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let mut bounds = Bounds::new();
        let networks = self.trusted_networks.len();
        bounds.check(networks <= MAX_NETWORKS, "trusted_networks", format_args!("0..={MAX_NETWORKS} networks"));
        bounds.into_violations()
    }
}

/// The proxies that are trusted to state whom they forward. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    config: Arc<ProxyConfig>,
    /// Whether connections begin with a PROXY header.
    protocol: bool,
}

impl Proxies {
    /// The proxies of the settings.
    pub fn new(config: &ProxyConfig) -> Self {
        Self { config: Arc::new(config.clone()), protocol: false }
    }

    /// These, of a listener whose connections all begin with a PROXY header, or none does.
    #[must_use]
    pub fn with_protocol(self, protocol: bool) -> Self {
        Self { protocol, ..self }
    }

    /// The header with the addresses of clients.
    pub(crate) fn header(&self) -> ForwardingHeader {
        self.config.forwarding_header
    }

    /// Whether an address is that of a proxy.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        let networks = &self.config.trusted_networks;
        !networks.is_empty() && networks.iter().any(|network| network.contains(&address.to_canonical()))
    }

    /// The address at the other end of a connection: `peer`, or what the PROXY header has, which is read.
    ///
    /// # Errors
    /// The connection is to be closed: it does not come from a proxy, or does not begin with a header of version 2 in time.
    pub async fn accept(&self, stream: &mut TcpStream, peer: IpAddr) -> io::Result<IpAddr> {
        if !self.protocol {
            return Ok(peer);
        }
        if !self.trusts(peer) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let header = tokio::time::timeout(HEADER_TIMEOUT, read_header(stream)).await??;
        Ok(header.unwrap_or(peer))
    }
}

/// The source in the header that a connection begins with; none for a connection of the proxy's own, such as a probe.
async fn read_header(stream: &mut TcpStream) -> io::Result<Option<IpAddr>> {
    let mut bytes = vec![0; FIXED];
    // No byte beyond the header: what follows is the client's.
    stream.read_exact(&mut bytes).await?;
    let rest = usize::from(u16::from_be_bytes([bytes[FIXED - 2], bytes[FIXED - 1]]));
    if !bytes.starts_with(ppp::v2::PROTOCOL_PREFIX) || rest > MAX_REST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    bytes.resize(FIXED + rest, 0);
    stream.read_exact(&mut bytes[FIXED..]).await?;
    let header = Header::try_from(&*bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(match (header.command, header.addresses) {
        (Command::Proxy, Addresses::IPv4(addresses)) => Some(addresses.source_address.into()),
        (Command::Proxy, Addresses::IPv6(addresses)) => Some(IpAddr::from(addresses.source_address).to_canonical()),
        (Command::Local | Command::Proxy, _) => None,
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    /// What the address of a connection is that begins with these bytes, and the bytes behind the header.
    async fn accepted(trusted: &str, begin: &[u8]) -> io::Result<(String, Vec<u8>)> {
        let networks = vec![trusted.parse().unwrap()];
        let config = ProxyConfig { trusted_networks: networks, ..ProxyConfig::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(begin).await.unwrap();
        drop(client);
        let (mut stream, peer) = listener.accept().await.unwrap();
        let address = Proxies::new(&config).with_protocol(true).accept(&mut stream, peer.ip()).await?;
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        Ok((address.to_string(), rest))
    }

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[0x20 | command, family], &length, rest].concat()
    }

    #[tokio::test]
    async fn the_header_has_the_address_of_the_client() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0x10, 0, 0, 80];
        let more = [&v4[..], &[0x04, 0, 2, 1, 2]].concat();
        let v6 = [&"2001:db8::7".parse::<std::net::Ipv6Addr>().unwrap().octets()[..], &[0; 20]].concat();
        for (header, address) in [
            (header(1, 0x11, &v4), "192.0.2.7"),
            (header(1, 0x11, &more), "192.0.2.7"),
            (header(1, 0x21, &v6), "2001:db8::7"),
            (header(0, 0, &[]), "127.0.0.1"),
            (header(1, 0, &[]), "127.0.0.1"),
        ] {
            let begin = [&header[..], b"GET"].concat();
            let (found, rest) = accepted("127.0.0.0/8", &begin).await.unwrap();
            assert_eq!((&*found, &*rest), (address, &b"GET"[..]), "{header:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_header_or_from_elsewhere_is_refused() {
        let v4 = [192, 0, 2, 7, 10, 0, 0, 1, 0x10, 0, 0, 80];
        let good = header(1, 0x11, &v4);
        assert_eq!(accepted("10.0.0.0/8", &good).await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        let mut version = good.clone();
        version[12] = 0x11;
        for bad in [
            &b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"[..],
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4096 80\r\n",
            &good[..20],
            &header(1, 0x11, &v4[..8]),
            &header(2, 0x11, &v4),
            &header(1, 0x11, &vec![0; MAX_REST + 1]),
            &version,
            b"",
        ] {
            assert!(accepted("127.0.0.0/8", bad).await.is_err(), "{bad:?}");
        }
    }
}
