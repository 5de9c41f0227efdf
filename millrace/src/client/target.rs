//! The address of a service: HTTP to a host and a port, encrypted or not.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;
use std::{fmt, io};

use http::HeaderValue;
use millrace_service::net::TlsClient;

use super::Connection;

/// The address of a service, `http://host:port` or `https://host:port` without a path, and the key for it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// `host:port`, for the Host field and for connecting.
    pub(crate) authority: String,
    https: bool,
    access: Access,
}

/// What a target gets to see, and whom it has to be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// The value of `Authorization`.
    pub(crate) key: Option<HeaderValue>,
    /// Encrypts; the authorities of the system are loaded without it.
    pub(crate) tls: Option<TlsClient>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority)
    }
}

impl Target {
    /// The service behind a listener of this machine, which encrypts or not.
    pub(crate) fn of_listener(address: SocketAddr, https: bool) -> Self {
        Self { authority: reachable(address).to_string(), https, access: Access::default() }
    }

    /// Sets the key and the authorities.
    #[must_use]
    pub(crate) fn with(self, access: &Access) -> Self {
        Self { access: access.clone(), ..self }
    }

    /// Connects.
    pub(crate) async fn open(&self, within: Duration) -> io::Result<Connection> {
        let tls = match &self.access.tls {
            _ if !self.https => None,
            Some(tls) => Some(tls),
            None => Some(system_authorities()?),
        };
        Ok(Connection::open(&self.authority, tls, within).await?.with_key(self.access.key.clone()))
    }
}

/// The authorities of the system, read once: a tool may open thousands of connections.
fn system_authorities() -> io::Result<&'static TlsClient> {
    static SYSTEM: OnceLock<TlsClient> = OnceLock::new();
    if let Some(tls) = SYSTEM.get() {
        return Ok(tls);
    }
    let tls = TlsClient::new(None).map_err(io::Error::other)?;
    Ok(SYSTEM.get_or_init(|| tls))
}

/// The address of a listener for a client on the same machine: loopback for a listener on every address.
pub(crate) fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = || "must be http://HOST:PORT or https://HOST:PORT without a path".to_owned();
        let uri: http::Uri = text.parse().map_err(|_| allowed())?;
        let authority = uri.authority().ok_or_else(allowed)?;
        let https = uri.scheme_str() == Some("https");
        let plain = uri.path() == "/" && uri.query().is_none();
        if !(https || uri.scheme_str() == Some("http")) || !plain || authority.as_str().contains('@') {
            return Err(allowed());
        }
        let host = authority.host();
        Ok(Self {
            authority: format!("{host}:{}", authority.port_u16().unwrap_or(if https { 443 } else { 80 })),
            https,
            access: Access::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_plain_addresses_only() {
        let authority = |text: &str| text.parse::<Target>().map(|target| target.authority);
        assert_eq!(authority("http://127.0.0.1:8081").as_deref(), Ok("127.0.0.1:8081"));
        assert_eq!(authority("http://[::1]:8081/").as_deref(), Ok("[::1]:8081"));
        assert_eq!(authority("http://command").as_deref(), Ok("command:80"));
        assert_eq!(authority("https://command").as_deref(), Ok("command:443"));
        assert_eq!("https://a:1/".parse::<Target>().unwrap().to_string(), "https://a:1");
        for bad in ["", "8081", "ftp://a:1", "http://a:1/x", "http://a:1/?q", "http://u@a:1", "a:1"] {
            assert!(authority(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reaches_a_listener_on_every_address_through_loopback() {
        let target = |address: &str| Target::of_listener(address.parse().unwrap(), false).authority;
        assert_eq!(target("0.0.0.0:8081"), "127.0.0.1:8081");
        assert_eq!(target("[::]:8081"), "[::1]:8081");
        assert_eq!(target("192.0.2.1:8081"), "192.0.2.1:8081");
    }
}
