//! The address of a service: plain HTTP to a host and a port.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use http::HeaderValue;
use millrace_service::auth::ApiKey;

use super::Connection;

/// The address of a service, `http://host:port` without a path, and the key for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// `host:port`, for the Host field and for connecting.
    pub(crate) authority: String,
    /// The value of `Authorization`.
    key: Option<HeaderValue>,
}

impl Target {
    /// The service behind a listener of this machine.
    pub(crate) fn of_listener(address: SocketAddr) -> Self {
        Self { authority: reachable(address).to_string(), key: None }
    }

    /// Shows a key with each request.
    #[must_use]
    pub(crate) fn with_key(self, key: Option<&ApiKey>) -> Self {
        Self { key: key.map(ApiKey::bearer), ..self }
    }

    /// Connects.
    pub(crate) async fn open(&self, within: Duration) -> io::Result<Connection> {
        Ok(Connection::open(&self.authority, within).await?.with_key(self.key.clone()))
    }
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
        let allowed = || "must be http://HOST:PORT without a path".to_owned();
        let uri: http::Uri = text.parse().map_err(|_| allowed())?;
        let authority = uri.authority().ok_or_else(allowed)?;
        let plain = uri.scheme_str() == Some("http") && uri.path() == "/" && uri.query().is_none();
        if !plain || authority.as_str().contains('@') {
            return Err(allowed());
        }
        let host = authority.host();
        Ok(Self { authority: format!("{host}:{}", authority.port_u16().unwrap_or(80)), key: None })
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
        for bad in ["", "8081", "https://a:1", "http://a:1/x", "http://a:1/?q", "http://u@a:1", "a:1"] {
            assert!(authority(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn reaches_a_listener_on_every_address_through_loopback() {
        let target = |address: &str| Target::of_listener(address.parse().unwrap()).authority;
        assert_eq!(target("0.0.0.0:8081"), "127.0.0.1:8081");
        assert_eq!(target("[::]:8081"), "[::1]:8081");
        assert_eq!(target("192.0.2.1:8081"), "192.0.2.1:8081");
    }
}
