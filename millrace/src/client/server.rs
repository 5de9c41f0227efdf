//! The address of a TCP intake, encrypted or not.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::{fmt, io};

use millrace_service::net::{Socket, TlsClient, is_loopback};
use tokio::net::TcpStream;

use super::reachable;

/// `HOST:PORT`, or `tls://HOST:PORT` if connections are encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Server {
    host: String,
    port: u16,
    pub(crate) tls: bool,
}

/// A key would cross a network unencrypted.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0} is on another machine and not encrypted, so everybody on the way could read the key, which was not sent: use tls://, or \
     --allow-clear-key in a network that you trust"
)]
pub(crate) struct ClearKey(Server);

impl Server {
    /// The server behind a listener of this machine.
    pub(crate) fn of_listener(address: SocketAddr, tls: bool) -> Self {
        let address = reachable(address);
        Self { host: address.ip().to_string(), port: address.port(), tls }
    }

    /// Refuses to show a key that others could read on its way.
    pub(crate) fn check_key(&self) -> Result<(), ClearKey> {
        if self.tls || is_loopback(&self.host) { Ok(()) } else { Err(ClearKey(self.clone())) }
    }

    /// Connects, encrypted with `tls`.
    pub(crate) async fn connect(&self, tls: Option<&TlsClient>) -> io::Result<Socket> {
        let stream = TcpStream::connect((&*self.host, self.port)).await?;
        stream.set_nodelay(true)?;
        match tls {
            Some(tls) => tls.connect(&self.host, stream).await,
            None => Ok(Socket::Plain(stream)),
        }
    }
}

impl FromStr for Server {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (tls, address) = text.strip_prefix("tls://").map_or((false, text), |address| (true, address));
        let parsed = address.rsplit_once(':').and_then(|(host, port)| {
            let host = match host.strip_prefix('[') {
                Some(host) => host.strip_suffix(']')?,
                None => host,
            };
            // A colon is part of an IPv6 address alone.
            let legal = !host.is_empty() && !host.contains(['/', '@']);
            let legal = legal && (!host.contains(':') || host.parse::<IpAddr>().is_ok());
            legal.then_some(Self { host: host.to_owned(), port: port.parse().ok()?, tls })
        });
        parsed.ok_or_else(|| "must be HOST:PORT or tls://HOST:PORT".to_owned())
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, tls } = self;
        let scheme = if *tls { "tls://" } else { "" };
        if host.contains(':') { write!(f, "{scheme}[{host}]:{port}") } else { write!(f, "{scheme}{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in
            ["localhost:8084", "tls://intake.example:8084", "192.0.2.1:1", "tls://[2001:db8::1]:8084", "[::1]:1"]
        {
            assert_eq!(text.parse::<Server>().map(|server| server.to_string()).as_deref(), Ok(text));
        }
        assert_eq!("::1:80".parse::<Server>().map(|server| server.host).as_deref(), Ok("::1"));
        for bad in ["", "8084", ":8084", "a:", "a:x", "a:65536", "https://a:1", "tls://", "a/b:1", "u@a:1", "a:b:1"] {
            assert!(bad.parse::<Server>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_key_crosses_no_network_in_clear() {
        let check = |text: &str| text.parse::<Server>().unwrap().check_key();
        for safe in ["localhost:1", "127.0.0.1:1", "[::1]:1", "tls://intake.example:1"] {
            assert!(check(safe).is_ok(), "{safe}");
        }
        for clear in ["intake.example:1", "192.0.2.1:1", "127.0.0.1.example:1"] {
            let refused = check(clear).unwrap_err().to_string();
            assert!(refused.starts_with(clear) && refused.contains("tls://"), "{refused}");
        }
    }

    #[test]
    fn reaches_a_listener_on_every_address_through_loopback() {
        let server = Server::of_listener("0.0.0.0:8084".parse().unwrap(), true);
        assert_eq!(server.to_string(), "tls://127.0.0.1:8084");
    }
}
