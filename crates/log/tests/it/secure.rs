//! Kafka over TLS with a password: all clients work with the right certificate, and none connects with a wrong one.

use std::path::Path;

use millrace_log::LogError;
use millrace_testkit::{Authority, CertificateFault, SecureKafka, ServerCertificate, not_run};

use crate::harness::{Engine, append, run_stage, until};
use crate::numbering::{Numbering, check_numbers};

/// The settings of an operator, for the listener with this certificate.
fn engine(kafka: &SecureKafka, certificate: usize, authority: &Path, password: &str) -> Engine {
    let mut engine = Engine::kafka_at(&kafka.brokers(certificate));
    let Engine::Kafka { config, .. } = &mut engine else { unreachable!() };
    let authority = authority.display().to_string();
    for (key, value) in [
        ("security.protocol", "sasl_ssl"),
        ("ssl.ca.location", &*authority),
        ("sasl.mechanism", "SCRAM-SHA-512"),
        ("sasl.username", SecureKafka::USER),
        ("sasl.password", password),
        // The broker listens on 127.0.0.1, which may not be the first address of `localhost`.
        ("broker.address.family", "v4"),
    ] {
        config.properties.0.insert(key.to_owned(), value.to_owned());
    }
    engine
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_are_trusted_by_their_certificate_and_trust_a_password() {
    let (authority, other) = (Authority::new(), Authority::new());
    let mut certificates = vec![authority.server()];
    certificates.extend(CertificateFault::ALL.map(|fault| authority.faulty_server(fault)));
    let listeners: Vec<&ServerCertificate> = certificates.iter().collect();
    let started = SecureKafka::start(&listeners).map_err(|why| not_run("log: TLS", "Apache Kafka", &why));
    let Ok(kafka) = started else { return };
    let directory = tempfile::tempdir().unwrap();
    let (trusted, untrusted) = (authority.write(directory.path()), other.write(directory.path()));

    let log = engine(&kafka, 0, &trusted, SecureKafka::PASSWORD).open().await;
    append(&log, 0, ["a".to_owned(), "b".to_owned()]).await;
    let running = run_stage(&log, Numbering, "numbering", "a");
    until("both are numbered", || async { check_numbers(&log).await == 2 }).await;
    running.end().await.unwrap();

    // The same but for one thing each.
    let certificate = "SSL handshake failed";
    let mut refused: Vec<(Engine, &str)> = (1..certificates.len())
        .map(|listener| (engine(&kafka, listener, &trusted, SecureKafka::PASSWORD), certificate))
        .collect();
    refused.push((engine(&kafka, 0, &untrusted, SecureKafka::PASSWORD), certificate));
    refused.push((engine(&kafka, 0, &trusted, "another-password"), "SASL authentication error"));
    // Each takes as long as brokers get to respond.
    let opening: Vec<_> = refused
        .into_iter()
        .map(|(engine, why)| tokio::task::spawn_blocking(move || (engine.try_open().map(|_| ()), why)))
        .collect();
    for opened in opening {
        let (opened, why) = opened.await.unwrap();
        let error = opened.unwrap_err();
        assert!(matches!(error, LogError::Unavailable(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(why) && !text.contains("another-password"), "{text}");
    }
}
