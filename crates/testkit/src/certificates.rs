//! Certificates for servers under test: an authority, and what it signs, valid or wrong in one way.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};

use crate::wait::unique;

/// The names of a server on loopback.
const NAMES: [&str; 2] = ["localhost", "127.0.0.1"];

/// What is wrong with a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateFault {
    /// An authority signed it that the client does not trust.
    OtherAuthority,
    /// It is that of another host.
    OtherName,
    /// It is no longer valid.
    Expired,
}

impl CertificateFault {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::OtherAuthority, Self::OtherName, Self::Expired];
}

/// A certificate authority.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A server's certificate and its key, in PEM.
#[derive(Clone)]
pub struct ServerCertificate {
    certificate: String,
    key: String,
}

impl Authority {
    /// A new authority, with a name of its own.
    ///
    /// # Panics
    /// Without random bytes.
    pub fn generate() -> Self {
        let mut params = params(&[], &unique("authority"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        Self(CertifiedIssuer::self_signed(params, new_key()).expect("an authority"))
    }

    /// Its certificate in PEM, for those who trust it.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes its certificate to a file of this directory.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn write(&self, directory: &Path) -> PathBuf {
        let file = directory.join(format!("{}.pem", unique("authority")));
        fs::write(&file, self.pem()).expect("a file of the authority");
        file
    }

    /// A valid certificate for a server on loopback: `localhost` and `127.0.0.1`.
    pub fn server(&self) -> ServerCertificate {
        self.sign(params(&NAMES, "server"))
    }

    /// A certificate for a server on loopback with one fault, for clients that trust this authority.
    pub fn faulty_server(&self, fault: CertificateFault) -> ServerCertificate {
        match fault {
            CertificateFault::OtherAuthority => Self::generate().server(),
            CertificateFault::OtherName => self.sign(params(&["other.example", "192.0.2.1"], "server")),
            CertificateFault::Expired => {
                let mut params = params(&NAMES, "server");
                params.not_before = date_time_ymd(2020, 1, 1);
                params.not_after = date_time_ymd(2020, 2, 1);
                self.sign(params)
            }
        }
    }

    fn sign(&self, params: CertificateParams) -> ServerCertificate {
        let key = new_key();
        let certificate = params.signed_by(&key, &self.0).expect("a signature of the authority");
        ServerCertificate { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

impl ServerCertificate {
    /// Writes the certificate and its key to two files of this directory, `server.pem` and `server.key`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn write(&self, directory: &Path) -> Result<[PathBuf; 2], String> {
        let files = ["server.pem", "server.key"].map(|name| directory.join(name));
        for (file, text) in files.iter().zip([&self.certificate, &self.key]) {
            fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        Ok(files)
    }

    /// Key and certificate in one text, as a keystore of Kafka.
    pub(crate) fn keystore(&self) -> String {
        format!("{}{}", self.key, self.certificate)
    }
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("a key on P-256")
}

fn params(names: &[&str], common_name: &str) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).expect("names of hosts");
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}
