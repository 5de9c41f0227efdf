//! Certificates for servers under test, valid or wrong in one way.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::CertificateParams;

use crate::authority::{Authority, Certificate, expired, params};
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

/// A server's certificate and its key, in PEM.
#[derive(Clone)]
pub struct ServerCertificate {
    certificate: String,
    key: String,
}

impl Authority {
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
        self.server_of(&params(&NAMES))
    }

    /// A certificate for a server on loopback with one fault, for clients that trust this authority.
    pub fn faulty_server(&self, fault: CertificateFault) -> ServerCertificate {
        match fault {
            CertificateFault::OtherAuthority => Self::new().server(),
            CertificateFault::OtherName => self.server_of(&params(&["other.example", "192.0.2.1"])),
            CertificateFault::Expired => self.server_of(&expired(&NAMES)),
        }
    }

    fn server_of(&self, params: &CertificateParams) -> ServerCertificate {
        let Certificate { cert, signing_key } = self.signed(params);
        ServerCertificate { certificate: cert.pem(), key: signing_key.serialize_pem() }
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
