//! Redis and PostgreSQL over TLS: a right certificate is used, and one that is wrong in any way is refused.

use std::path::PathBuf;

use millrace_contracts::{Next, StoreError};
use millrace_store::{Archive, LiveHours, PostgresConfig, RedisConfig, SecretUrl};
use millrace_testkit::{Authority, CertificateFault, Postgres, Redis, ServerCertificate, not_run};
use tempfile::TempDir;

use crate::redis_live::names;
use crate::support::{PARTITIONS, complete, hour_read, now, window};

/// An authority, and its file for clients.
struct Trust {
    authority: Authority,
    file: PathBuf,
    directory: TempDir,
}

fn trust() -> Trust {
    let (authority, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    Trust { file: authority.write(directory.path()), authority, directory }
}

/// What the refusal of a certificate states.
fn reason(fault: CertificateFault) -> &'static str {
    match fault {
        CertificateFault::OtherAuthority => "UnknownIssuer",
        CertificateFault::OtherName => "not valid for name",
        CertificateFault::Expired => "certificate expired",
    }
}

fn redis(certificate: &ServerCertificate) -> Option<Redis> {
    Redis::start_tls(certificate).map_err(|why| not_run("store: redis TLS", "Redis with TLS", &why)).ok()
}

async fn live(url: &str, ca_file: PathBuf) -> Result<LiveHours, StoreError> {
    let config = RedisConfig { url: SecretUrl::from(url), ca_file, ..RedisConfig::default() };
    LiveHours::connect(&config, &names(), PARTITIONS, window()).await
}

#[tokio::test]
async fn redis_is_used_over_tls() {
    let trust = trust();
    let Some(server) = redis(&trust.authority.server()) else { return };
    let store = live(&server.tls_url(), trust.file).await.unwrap();
    complete(&mut store.writer(), [1, 1, 1]).await;
    assert_eq!(store.hour(now()).await, Ok(hour_read([3, 3, 3])));
    // The authorities of the system did not sign it.
    let store = live(&server.tls_url(), PathBuf::new()).await.unwrap();
    let error = store.hour(now()).await.unwrap_err();
    assert!(error.next == Next::Retry && error.detail.contains("UnknownIssuer"), "{error}");
    // A server that does not encrypt is not one to trust.
    let clear = server.url().replace("redis://", "rediss://");
    let store = live(&clear, trust.authority.write(trust.directory.path())).await.unwrap();
    assert_eq!(store.hour(now()).await.unwrap_err().next, Next::Retry);
}

#[tokio::test]
async fn redis_with_a_wrong_certificate_is_refused() {
    let trust = trust();
    for fault in CertificateFault::ALL {
        let Some(server) = redis(&trust.authority.faulty_server(fault)) else { return };
        let store = live(&server.tls_url(), trust.file.clone()).await.unwrap();
        let error = store.hour(now()).await.unwrap_err();
        assert!(error.next == Next::Retry && error.detail.contains(reason(fault)), "{fault:?}: {error}");
    }
}

#[tokio::test]
async fn a_file_of_authorities_that_cannot_be_used_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let broken = directory.path().join("broken.pem");
    std::fs::write(&broken, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    for file in [directory.path().join("missing.pem"), broken] {
        let error = live("rediss://127.0.0.1:1", file).await.unwrap_err();
        assert!(error.next == Next::Stop && error.detail.starts_with("redis.ca_file "), "{error}");
    }
}

fn postgres(certificate: &ServerCertificate) -> Option<Postgres> {
    Postgres::start_tls(certificate).map_err(|why| not_run("store: postgres TLS", "PostgreSQL", &why)).ok()
}

/// The settings of an operator, with the authorities in this file beside the public ones.
fn verified(url: &str, authorities: &str) -> PostgresConfig {
    let url = format!("{url}?sslmode=verify-full{authorities}");
    PostgresConfig { url: SecretUrl::from(&*url), ..PostgresConfig::default() }
}

fn root(trust: &Trust) -> String {
    format!("&sslrootcert={}", trust.file.display())
}

async fn refusal(config: &PostgresConfig) -> StoreError {
    match Archive::postgres(config, PARTITIONS).await {
        Err(error) => error,
        Ok(archive) => archive.hour(now()).await.unwrap_err(),
    }
}

#[tokio::test]
async fn postgres_is_used_over_tls() {
    let trust = trust();
    let Some(server) = postgres(&trust.authority.server()) else { return };
    let config = verified(&server.url(), &root(&trust));
    let archive = Archive::postgres(&config, PARTITIONS).await.unwrap();
    complete(&mut archive.writer(), [1, 1, 1]).await;
    assert_eq!(archive.hour(now()).await, Ok(hour_read([3, 3, 3])));
    // No public authority signed it.
    let error = refusal(&verified(&server.url(), "")).await;
    assert!(error.detail.contains("UnknownIssuer"), "{error}");
}

#[tokio::test]
async fn postgres_with_a_wrong_certificate_is_refused() {
    let trust = trust();
    for fault in CertificateFault::ALL {
        let Some(server) = postgres(&trust.authority.faulty_server(fault)) else { return };
        let error = refusal(&verified(&server.url(), &root(&trust))).await;
        assert!(error.detail.contains(reason(fault)), "{fault:?}: {error}");
    }
}

#[tokio::test]
async fn postgres_that_does_not_encrypt_is_refused() {
    let Some(url) = millrace_testkit::postgres("store: postgres TLS") else { return };
    let error = refusal(&verified(url, &root(&trust()))).await;
    assert!(error.detail.contains("TLS"), "{error}");
}
