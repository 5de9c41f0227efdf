//! Encryption: versions, protocols, and certificates that change under load.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use millrace_service::ServiceContext;
use millrace_service::auth::Authenticator;
use millrace_service::cors::Cors;
use millrace_service::health::Health;
use millrace_service::http::HttpLimits;
use millrace_service::net::{Proxies, Tls, TlsConfig};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};

struct Server {
    address: SocketAddr,
    directory: TempDir,
    health: Health,
    _stop: DropGuard,
}

/// Writes a new certificate for `localhost` and its key over those in a directory.
pub(crate) fn renew(directory: &Path) -> CertificateDer<'static> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for (name, pem) in [("cert.pem", made.cert.pem()), ("key.pem", made.signing_key.serialize_pem())] {
        let new = directory.join("new");
        fs::write(&new, pem).unwrap();
        fs::rename(new, directory.join(name)).unwrap();
    }
    made.cert.der().clone()
}

async fn start() -> (Server, CertificateDer<'static>) {
    let directory = tempfile::tempdir().unwrap();
    let certificate = renew(directory.path());
    let (health, stop) = (Health::new(), CancellationToken::new());
    let file = |name| directory.path().join(name);
    let config = TlsConfig {
        certificate_file: file("cert.pem"),
        key_file: file("key.pem"),
        terminated_upstream: false,
        ..TlsConfig::default()
    };
    let tls = Tls::start(&config, &health, stop.clone()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().route("/livez", get(async || "live\n"));
    let context = ServiceContext {
        health: health.clone(),
        stop: stop.clone(),
        auth: Authenticator::off(),
        tls,
        proxies: Proxies::default(),
        cors: Cors::default(),
    };
    tokio::spawn(context.serve_http(listener, router, HttpLimits::default(), async || {}));
    (Server { address, directory, health, _stop: stop.drop_guard() }, certificate)
}

pub(crate) fn client(
    trusted: &[CertificateDer<'static>],
    versions: &[&'static SupportedProtocolVersion],
    alpn: &[&str],
) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(trusted.iter().cloned());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config.resumption = rustls::client::Resumption::disabled();
    TlsConnector::from(Arc::new(config))
}

async fn connect(connector: &TlsConnector, address: SocketAddr) -> std::io::Result<TlsStream<TcpStream>> {
    encrypted(connector, TcpStream::connect(address).await?).await
}

pub(crate) async fn encrypted(connector: &TlsConnector, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
    connector.connect(ServerName::try_from("localhost").unwrap(), stream).await
}

/// The response to `GET /livez` on a connection that it closes.
async fn live(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    // A peer that closes without a farewell is an error to TLS.
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

#[tokio::test]
async fn both_versions_and_protocols_are_served_and_nothing_in_clear() {
    let (server, certificate) = start().await;
    let trusted = [certificate];
    for (version, expected) in
        [(&rustls::version::TLS12, ProtocolVersion::TLSv1_2), (&rustls::version::TLS13, ProtocolVersion::TLSv1_3)]
    {
        let mut stream = connect(&client(&trusted, &[version], &["http/1.1"]), server.address).await.unwrap();
        assert_eq!(stream.get_ref().1.protocol_version(), Some(expected));
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert!(live(&mut stream).await.ends_with("live\n"));
    }
    let both = client(&trusted, rustls::ALL_VERSIONS, &["h2", "http/1.1"]);
    let mut stream = connect(&both, server.address).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut frame = [0; 9];
    stream.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], 4, "the server's SETTINGS");

    let stranger = connect(&client(&[], rustls::ALL_VERSIONS, &[]), server.address).await.unwrap_err();
    assert!(stranger.to_string().contains("UnknownIssuer"), "{stranger}");
    let mut clear = TcpStream::connect(server.address).await.unwrap();
    clear.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = clear.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_and_no_handshake_fails() {
    let (server, first) = start().await;
    let spare = tempfile::tempdir().unwrap();
    let second = renew(spare.path());
    let connector = client(&[first.clone(), second.clone()], rustls::ALL_VERSIONS, &["http/1.1"]);
    let (stop, handshakes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (connector, stop, handshakes) = (connector.clone(), stop.clone(), handshakes.clone());
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let mut stream = connect(&connector, server.address).await.unwrap();
                    assert!(live(&mut stream).await.ends_with("live\n"));
                    handshakes.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let presented = async || {
        let stream = connect(&connector, server.address).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    assert_eq!(presented().await, first);
    for name in ["cert.pem", "key.pem"] {
        fs::rename(spare.path().join(name), server.directory.path().join(name)).unwrap();
    }
    let renewed = async {
        while presented().await != second {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), renewed).await.expect("the new certificate");
    // Half of a pair, and then nothing at all.
    fs::write(server.directory.path().join("key.pem"), "-----BEGIN PRIVATE KEY-----").unwrap();
    let warning = millrace_service::admin::router(&server.health);
    let warned = async {
        use tower::ServiceExt as _;
        loop {
            let request = axum::extract::Request::get("/readyz").body(axum::body::Body::empty()).unwrap();
            let response = warning.clone().oneshot(request).await.unwrap();
            let body = axum::body::to_bytes(response.into_body(), 4_096).await.unwrap();
            if body.starts_with(b"ready\nwarning: tls: cannot read the certificate") {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(1), warned).await.expect("a warning");
    assert_eq!(presented().await, second);
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    assert!(handshakes.load(Ordering::Relaxed) > 10);
}
