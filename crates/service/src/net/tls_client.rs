//! The client's end of encrypted connections.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::Socket;
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
    /// Trusts the authorities in a PEM file, or those of the system without one.
    ///
    /// # Errors
    /// The file cannot be used.
    ///
    /// # Panics
    /// Never: the provider has both versions.
    pub fn new(authorities: Option<&Path>) -> Result<Self, FileError> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = authorities {
            let bytes = files::read(path)?;
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
            let (added, _) = roots.add_parsable_certificates(certificates.unwrap_or_default());
            if added == 0 {
                return Err(FileError::invalid(path, "has no certificate in PEM"));
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(&[&TLS13, &TLS12]).expect("the provider has both versions");
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
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
