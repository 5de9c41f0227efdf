//! The address of a service: HTTP to a host and a port, encrypted or not.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::Duration;
use std::{fmt, io};

use http::HeaderValue;
use millrace_service::net::{TlsClient, is_loopback};

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
    /// Whether the key may cross a network unencrypted.
    pub(crate) allow_clear_key: bool,
}

/// A key would cross a network unencrypted.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0} is on another machine and not encrypted, so everybody on the way could read the key, which was not sent: use https://, or \
     --allow-clear-key in a network that you trust"
)]
pub(crate) struct ClearKey(String);

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.https { "https" } else { "http" }, self.authority)
    }
}

impl Target {
    /// The service behind a listener of this machine, which encrypts or not.
    pub(crate) fn of_listener(address: SocketAddr, https: bool, access: &Access) -> Self {
        Self { authority: reachable(address).to_string(), https, access: access.clone() }
    }

    /// Sets the key and the authorities.
    ///
    /// # Errors
    /// The key would be readable on its way.
    pub(crate) fn with(self, access: &Access) -> Result<Self, ClearKey> {
        if access.key.is_some() && !access.allow_clear_key && !self.https && !self.is_loopback() {
            return Err(ClearKey(self.to_string()));
        }
        Ok(Self { access: access.clone(), ..self })
    }

    /// Whether the address is of this machine.
    fn is_loopback(&self) -> bool {
        is_loopback(self.authority.rsplit_once(':').map_or(&*self.authority, |(host, _)| host))
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
    fn a_key_crosses_no_network_in_clear() {
        let with = |text: &str, access: &Access| text.parse::<Target>().unwrap().with(access);
        let key = Access { key: Some(HeaderValue::from_static("Bearer k")), ..Access::default() };
        for safe in ["http://127.0.0.1:1", "http://[::1]:1", "http://Localhost", "https://a.example"] {
            assert!(with(safe, &key).is_ok(), "{safe}");
        }
        for clear in ["http://command:8081", "http://192.0.2.1", "http://[2001:db8::1]:1", "http://127.0.0.1.example"] {
            let refused = with(clear, &key).unwrap_err().to_string();
            assert!(refused.starts_with(clear) && refused.contains("--allow-clear-key"), "{refused}");
            assert!(with(clear, &Access { allow_clear_key: true, ..key.clone() }).is_ok());
            assert!(with(clear, &Access::default()).is_ok(), "there is no key");
        }
    }

    #[test]
    fn reaches_a_listener_on_every_address_through_loopback() {
        let access = Access::default();
        let target = |address: &str| Target::of_listener(address.parse().unwrap(), false, &access).authority;
        assert_eq!(target("0.0.0.0:8081"), "127.0.0.1:8081");
        assert_eq!(target("[::]:8081"), "[::1]:8081");
        assert_eq!(target("192.0.2.1:8081"), "192.0.2.1:8081");
    }
}
