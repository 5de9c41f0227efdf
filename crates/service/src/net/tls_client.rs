//! The client's end of encrypted connections.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::Socket;
use super::tls::{INTAKE_ALPN, authorities_of};
use crate::files::{self, FileError};

/// Encrypts connections to servers whose certificates it trusts. There is no way to trust all of them.
#[derive(Clone)]
pub struct TlsClient(TlsConnector);

impl fmt::Debug for TlsClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TlsClient")
    }
}

impl TlsClient {
    /// For HTTP/1.1. Trusts the authorities in a PEM file, or those of the system without one.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn new(authorities: Option<&Path>) -> Result<Self, FileError> {
        Self::speaking(authorities, &[b"http/1.1"])
    }

    /// As [`Self::new`], for TCP intake.
    ///
    /// # Errors
    /// The file cannot be used.
    pub fn for_intake(authorities: Option<&Path>) -> Result<Self, FileError> {
        Self::speaking(authorities, &[INTAKE_ALPN])
    }

    fn speaking(authorities: Option<&Path>, alpn: &[&[u8]]) -> Result<Self, FileError> {
        let mut config = client_config(authorities)?;
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Makes the handshake with the server of this name or address.
    ///
    /// # Errors
    /// The server does not speak TLS, or its certificate is not trusted, not valid now, or not for this name.
    pub async fn connect(&self, host: &str, stream: TcpStream) -> io::Result<Socket> {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let stream = self.0.connect(name, stream).await?;
        Ok(Socket::Tls(Box::new(TlsStream::from(stream))))
    }
}

/// A client that trusts the authorities in a PEM file, or those of the system without one, and names no protocol (ALPN).
///
/// # Errors
/// The file cannot be used.
///
/// # Panics
/// Never: the provider has both versions.
pub fn client_config(authorities: Option<&Path>) -> Result<ClientConfig, FileError> {
    let roots = if let Some(path) = authorities {
        authorities_of(path, &files::read(path)?)?
    } else {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(&[&TLS13, &TLS12]).expect("the provider has both versions");
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
