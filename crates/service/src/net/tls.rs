//! Encryption of connections in the process.
//!
//! The files of certificate, key and clients' authorities are read each second; a connection begins with those of the moment,
//! and open ones go on. Files that break later change nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::{counter, gauge};
use millrace_base::{Bounds, Violation};
use millrace_contracts::metric;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::Socket;
use crate::files::{self, FileError, Reading};
use crate::health::Health;

/// From the first byte of a connection to the end of its handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// The name of the protocol of TCP intake (ALPN, RFC 7301). A client may name none, but no other: what a browser is made to
/// send to that listener ends at the handshake.
pub(super) const INTAKE_ALPN: &[u8] = b"millrace-tcp/1";

/// Settings of encryption, section `[tls]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The certificate and its chain, in PEM; empty for none.
    pub certificate_file: PathBuf,
    /// The key of the certificate, in PEM.
    pub key_file: PathBuf,
    /// The authorities that certificates of clients are trusted by, in PEM; empty: none is requested.
    pub client_ca_file: PathBuf,
    /// The authorities that certificates of other processes are trusted by, in PEM; empty for those of the system.
    pub process_ca_file: PathBuf,
    /// Whether a proxy in front of the process encrypts.
    pub terminated_upstream: bool,
}

impl TlsConfig {
    /// Whether public listeners encrypt.
    pub fn is_on(&self) -> bool {
        !self.certificate_file.as_os_str().is_empty()
    }

    /// Whether clients may show a certificate.
    pub fn takes_certificates(&self) -> bool {
        !self.client_ca_file.as_os_str().is_empty()
    }

    /// The authorities of other processes, if they are not those of the system.
    pub fn process_authorities(&self) -> Option<&Path> {
        Some(&*self.process_ca_file).filter(|path| !path.as_os_str().is_empty())
    }

    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let mut bounds = Bounds::new();
        let both = self.certificate_file.as_os_str().is_empty() == self.key_file.as_os_str().is_empty();
        bounds.check(both, "key_file", "a file if tls.certificate_file is one, and empty if not");
        bounds.check(
            self.is_on() || !self.takes_certificates(),
            "client_ca_file",
            "empty without tls.certificate_file",
        );
        bounds.into_violations()
    }
}

/// What a listener speaks once it is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http,
    Intake,
}

/// The server's end of encrypted connections. Cheap to clone; every clone has the same certificate.
#[derive(Clone)]
pub struct Tls {
    configs: Arc<ArcSwap<Configs>>,
    speaks: Speaks,
}

/// The configuration of each protocol.
struct Configs {
    http: Arc<ServerConfig>,
    intake: Arc<ServerConfig>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

/// The files as they were read last.
struct TlsFiles {
    config: TlsConfig,
    content: Option<Content>,
}

/// The content of the files of certificate, key and authorities.
#[derive(PartialEq, Eq)]
struct Content {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl TlsFiles {
    fn new(config: &TlsConfig) -> Self {
        Self { config: config.clone(), content: None }
    }

    /// The server's configurations, if the files have changed.
    fn read(&mut self) -> Result<Option<Arc<Configs>>, FileError> {
        let client_ca =
            self.config.takes_certificates().then(|| files::read(&self.config.client_ca_file)).transpose()?;
        let content = Content {
            certificate: files::read(&self.config.certificate_file)?,
            key: files::read(&self.config.key_file)?,
            client_ca,
        };
        if self.content.as_ref() == Some(&content) {
            return Ok(None);
        }
        let server = self.server(&content)?;
        files::warn_if_exposed(&self.config.key_file);
        self.content = Some(content);
        let (mut http, mut intake) = (server.clone(), server);
        http.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        intake.alpn_protocols = vec![INTAKE_ALPN.to_vec()];
        Ok(Some(Arc::new(Configs { http: Arc::new(http), intake: Arc::new(intake) })))
    }

    fn server(&self, content: &Content) -> Result<ServerConfig, FileError> {
        let (certificate_file, key_file) = (&self.config.certificate_file, &self.config.key_file);
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&content.certificate)
            .collect::<Result<_, _>>()
            .map_err(|_| FileError::invalid(certificate_file, "is not a chain of certificates in PEM"))?;
        let key = PrivateKeyDer::from_pem_slice(&content.key)
            .map_err(|_| FileError::invalid(key_file, "is not a private key in PEM"))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let clients = match &content.client_ca {
            Some(authorities) => self.client_verifier(authorities, provider.clone())?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let versions = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13, &TLS12]);
        let builder = versions.map_err(|error| FileError::invalid(certificate_file, error))?;
        builder
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(|error| FileError::invalid(certificate_file, format_args!("does not fit its key: {error}")))
    }

    /// Asks clients for a certificate of these authorities, and goes on without one: a key is as good.
    fn client_verifier(
        &self,
        authorities: &[u8],
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, FileError> {
        let file = &self.config.client_ca_file;
        let roots = authorities_of(file, authorities)?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).allow_unauthenticated();
        verifier.build().map_err(|error| FileError::invalid(file, error))
    }
}

/// The authorities in the bytes of a PEM file.
pub(super) fn authorities_of(path: &Path, bytes: &[u8]) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    let (added, _) = roots.add_parsable_certificates(certificates.unwrap_or_default());
    if added == 0 {
        return Err(FileError::invalid(path, "has no certificate in PEM"));
    }
    Ok(roots)
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
        let mut files = TlsFiles::new(config);
        let Some(configs) = files.read()? else { return Ok(None) };
        let tls = Self { configs: Arc::new(ArcSwap::new(configs)), speaks: Speaks::Http };
        let component = health.component("tls");
        component.ready();
        let followed = tls.clone();
        let read = move || {
            if let Some(configs) = files.read()? {
                followed.configs.store(configs);
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
        if let Some(path) = config.process_authorities() {
            authorities_of(path, &files::read(path)?)?;
        }
        if config.is_on() { TlsFiles::new(config).read().map(drop) } else { Ok(()) }
    }

    /// This one, for a listener of TCP intake instead of HTTP.
    #[must_use]
    pub fn for_intake(self) -> Self {
        Self { speaks: Speaks::Intake, ..self }
    }

    fn config(&self) -> Arc<ServerConfig> {
        let configs = self.configs.load();
        match self.speaks {
            Speaks::Http => configs.http.clone(),
            Speaks::Intake => configs.intake.clone(),
        }
    }

    /// Makes the handshake of a connection, within five seconds.
    ///
    /// # Errors
    /// The client does not speak TLS, accepts nothing that is offered, or takes too long.
    pub async fn accept(&self, stream: TcpStream) -> io::Result<Socket> {
        let acceptor = TlsAcceptor::from(self.config());
        let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await;
        let accepted = accepted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        accepted.map(|stream| Socket::Tls(Box::new(stream.into()))).inspect_err(|error| {
            let reason = if error.kind() == io::ErrorKind::TimedOut { "timeout" } else { "failed" };
            counter!(metric::TLS_REFUSED.name, "reason" => reason).increment(1);
            tracing::debug!(%error, "no TLS handshake");
        })
    }
}
