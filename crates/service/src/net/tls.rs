//! Encryption of connections in the process.
//!
//! The files of certificate and key are read each second; a connection begins with those of the moment, and open ones go on.
//! Files that break later change nothing.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::{counter, gauge};
use millrace_base::{Bounds, Violation};
use millrace_contracts::metric;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::{TLS12, TLS13};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_util::sync::CancellationToken;

use crate::files::{self, FileError, Reading};
use crate::health::Health;

/// From the first byte of a connection to the end of its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Settings of encryption, section `[tls]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate and its chain, in PEM; empty for none.
    pub certificate_file: PathBuf,
    /// The key of the certificate, in PEM.
    pub key_file: PathBuf,
    /// Whether a proxy in front of the process encrypts.
    pub terminated_upstream: bool,
}

impl TlsConfig {
    /// Whether public listeners encrypt.
    pub fn is_on(&self) -> bool {
        !self.certificate_file.as_os_str().is_empty()
    }

    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let mut bounds = Bounds::new();
        let both = self.certificate_file.as_os_str().is_empty() == self.key_file.as_os_str().is_empty();
        bounds.check(both, "key_file", "a file if tls.certificate_file is one, and empty if not");
        bounds.into_violations()
    }
}

/// The server's end of encrypted connections. Cheap to clone; every clone has the same certificate.
#[derive(Clone)]
pub struct Tls(Arc<ArcSwap<ServerConfig>>);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// The files as they were read last.
struct TlsFiles {
    config: TlsConfig,
    content: Option<[Vec<u8>; 2]>,
}

impl TlsFiles {
    /// The server's configuration, if the files have changed.
    fn read(&mut self) -> Result<Option<Arc<ServerConfig>>, FileError> {
        let content = [files::read(&self.config.certificate_file)?, files::read(&self.config.key_file)?];
        if self.content.as_ref() == Some(&content) {
            return Ok(None);
        }
        let server = self.server(&content)?;
        self.content = Some(content);
        Ok(Some(Arc::new(server)))
    }

    fn server(&self, [certificate, key]: &[Vec<u8>; 2]) -> Result<ServerConfig, FileError> {
        let (certificate_file, key_file) = (&self.config.certificate_file, &self.config.key_file);
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<_, _>>()
            .map_err(|_| FileError::invalid(certificate_file, "is not a chain of certificates in PEM"))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|_| FileError::invalid(key_file, "is not a private key in PEM"))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let versions = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12]);
        let builder = versions.map_err(|error| FileError::invalid(certificate_file, error))?;
        let mut server = builder
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(|error| FileError::invalid(certificate_file, format_args!("does not fit its key: {error}")))?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(server)
    }
}

impl Tls {
    /// Reads the files of the settings and follows them until `stop` is canceled; `None` without encryption. If they break
    /// later, the last ones stay in use, and the component `tls` of `health` has a warning.
    ///
    /// # Errors
    /// A file is missing or broken.
    pub fn start(config: &TlsConfig, health: &Health, stop: CancellationToken) -> Result<Option<Self>, FileError> {
        if !config.is_on() {
            return Ok(None);
        }
        let mut files = TlsFiles { config: config.clone(), content: None };
        let Some(server) = files.read()? else { return Ok(None) };
        let tls = Self(Arc::new(ArcSwap::new(server)));
        let component = health.component("tls");
        component.ready();
        let followed = tls.clone();
        let read = move || {
            if let Some(server) = files.read()? {
                followed.0.store(server);
                tracing::info!("read the certificate");
            }
            Ok(())
        };
        let reading = Reading::new("the certificate", component, gauge!(metric::TLS_STALE.name));
        tokio::spawn(stop.run_until_cancelled_owned(files::follow(reading, read)));
        Ok(Some(tls))
    }

    /// Checks that the files of the settings can be used.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn check(config: &TlsConfig) -> Result<(), FileError> {
        if config.is_on() { TlsFiles { config: config.clone(), content: None }.read().map(drop) } else { Ok(()) }
    }

    /// Makes the handshake of a connection, within five seconds.
    ///
    /// # Errors
    /// The client does not speak TLS, accepts nothing that is offered, or takes too long.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        let acceptor = TlsAcceptor::from(self.0.load_full());
        let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
        let accepted = accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        accepted.map(TlsStream::from).inspect_err(|error| {
            let reason = if error.kind() == io::ErrorKind::TimedOut { "timeout" } else { "failed" };
            counter!(metric::TLS_REFUSED.name, "reason" => reason).increment(1);
            tracing::debug!(%error, "no TLS handshake");
        })
    }
}
