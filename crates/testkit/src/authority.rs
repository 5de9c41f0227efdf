//! An authority, the certificates that it signs, and clients that trust it.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CertifiedKey, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::wait::unique;

/// A blocking encrypted connection.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// A certificate and its key.
pub type Certificate = CertifiedKey<KeyPair>;

/// An authority with a certificate of its own.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new one, with a name of its own.
    ///
    /// # Panics
    /// Without random bytes.
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.distinguished_name = named(&unique("authority"));
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("the parameters are right"))
    }

    /// Its certificate, in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs a certificate for names: DNS names, addresses, or URIs, which have `://`.
    ///
    /// # Panics
    /// A name is none.
    pub fn sign(&self, names: &[&str]) -> Certificate {
        self.signed(&params(names))
    }

    /// As [`Self::sign`], one that expired long ago.
    ///
    /// # Panics
    /// A name is none.
    pub fn sign_expired(&self, names: &[&str]) -> Certificate {
        self.signed(&expired(names))
    }

    /// As [`Self::sign`], one for servers alone: its extended key usage has no other.
    ///
    /// # Panics
    /// A name is none.
    pub fn sign_for_servers(&self, names: &[&str]) -> Certificate {
        let mut params = params(names);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.signed(&params)
    }

    pub(crate) fn signed(&self, params: &CertificateParams) -> Certificate {
        let signing_key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&signing_key, &*self.0).expect("the parameters are right");
        CertifiedKey { cert, signing_key }
    }

    /// Connects to a server for `localhost` whose certificate this authority has signed, with a certificate of its own or none,
    /// and makes the handshake. Neither this nor any later read or write waits longer than `timeout`.
    ///
    /// A server of TLS 1.3 that does not trust the certificate reports so at the first read.
    ///
    /// # Errors
    /// There is no connection, or the handshake fails.
    ///
    /// # Panics
    /// The certificate is not one.
    pub fn connect(
        &self,
        address: SocketAddr,
        certificate: Option<&Certificate>,
        timeout: Duration,
    ) -> io::Result<TlsStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a certificate of an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("the provider has them");
        let builder = builder.with_root_certificates(roots);
        let config = match certificate {
            None => builder.with_no_client_auth(),
            Some(Certificate { cert, signing_key }) => {
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
                builder.with_client_auth_cert(vec![cert.der().clone()], key).expect("a certificate and its key")
            }
        };
        let mut stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        let name = ServerName::try_from("localhost").expect("a name");
        let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(connection, stream))
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut named = DistinguishedName::new();
    named.push(DnType::CommonName, name);
    named
}

/// What is certified: DNS names, addresses, or URIs, which have `://`.
pub(crate) fn params(names: &[&str]) -> CertificateParams {
    let (uris, others): (Vec<&str>, Vec<&str>) = names.iter().copied().partition(|name| name.contains("://"));
    let others: Vec<String> = others.into_iter().map(str::to_owned).collect();
    let mut params = CertificateParams::new(others).expect("names or addresses");
    params.distinguished_name = named("subject");
    // OpenSSL wants it where it is strict.
    params.use_authority_key_identifier_extension = true;
    params.subject_alt_names.extend(uris.into_iter().map(|uri| SanType::URI(uri.try_into().expect("ASCII"))));
    params
}

/// As [`params`], of a certificate that expired long ago.
pub(crate) fn expired(names: &[&str]) -> CertificateParams {
    let mut params = params(names);
    params.not_after = date_time_ymd(2001, 1, 1);
    params
}
