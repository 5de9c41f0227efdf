//! Apache Kafka whose clients need TLS and a password (`SASL_SSL` with SCRAM).

use std::fmt::Write as _;
use std::fs;

use crate::certificates::ServerCertificate;
use crate::directories::scratch_dir;
use crate::kafka::Kafka;
use crate::wait::free_port;

/// A broker with one `SASL_SSL` listener per certificate. Dropping it kills it.
#[derive(Debug)]
pub struct SecureKafka {
    _broker: Kafka,
    ports: Vec<u16>,
}

impl SecureKafka {
    /// The user of SCRAM-SHA-512.
    pub const USER: &str = "millrace";
    /// Its password.
    pub const PASSWORD: &str = "password-of-kafka-7Qw";

    /// Starts a broker and waits until it is ready.
    ///
    /// # Errors
    /// The missing program, or why it did not start.
    pub fn start(certificates: &[&ServerCertificate]) -> Result<Self, String> {
        let folder = scratch_dir("kafka-keystores");
        // Brokers reach each other, and themselves, past the secure listeners.
        let (port, controller) = (free_port(), free_port());
        let mut listeners = format!("CLIENT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}");
        let mut advertised = format!("CLIENT://127.0.0.1:{port}");
        let mut protocols = "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT".to_owned();
        let (mut ports, mut stores) = (Vec::new(), Vec::new());
        for (number, certificate) in certificates.iter().enumerate() {
            let secure = free_port();
            let _ = write!(listeners, ",SECURE{number}://127.0.0.1:{secure}");
            let _ = write!(advertised, ",SECURE{number}://localhost:{secure}");
            let _ = write!(protocols, ",SECURE{number}:SASL_SSL");
            let file = folder.join(format!("{number}.pem"));
            fs::write(&file, certificate.keystore()).map_err(|error| format!("{}: {error}", file.display()))?;
            let of_listener = format!("listener.name.secure{number}");
            stores.push((format!("{of_listener}.ssl.keystore.type"), "PEM".to_owned()));
            stores.push((format!("{of_listener}.ssl.keystore.location"), file.display().to_string()));
            let login = "org.apache.kafka.common.security.scram.ScramLoginModule required;".to_owned();
            stores.push((format!("{of_listener}.scram-sha-512.sasl.jaas.config"), login));
            ports.push(secure);
        }
        let mut settings = vec![
            ("listeners", &*listeners),
            ("advertised.listeners", &*advertised),
            ("listener.security.protocol.map", &*protocols),
            ("sasl.enabled.mechanisms", "SCRAM-SHA-512"),
        ];
        settings.extend(stores.iter().map(|(key, value)| (&**key, &**value)));
        let user = format!("SCRAM-SHA-512=[name={},password={}]", Self::USER, Self::PASSWORD);
        let mut broker = Kafka::prepare(port, controller, &settings, &["--add-scram", &user])?;
        broker.restart()?;
        Ok(Self { _broker: broker, ports })
    }

    /// The bootstrap address of the listener with this certificate; clients that start there stay on it.
    ///
    /// # Panics
    /// If there are fewer certificates.
    pub fn brokers(&self, certificate: usize) -> String {
        format!("localhost:{}", self.ports[certificate])
    }
}
