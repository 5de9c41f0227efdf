//! The issuer's keys from a URL.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use futures::future::select_all;
use http::header::AUTHORIZATION;
use http::{Request, StatusCode};
use millrace_base::{Clock, Span};
use millrace_service::ServiceContext;
use millrace_service::auth::{AuthConfig, AuthMode, Authenticator, Credential, Denial, JwtConfig, PrincipalLimits};
use millrace_service::cors::Cors;
use millrace_service::health::Health;
use millrace_service::http::{HttpLimits, Peer};
use millrace_service::net::{Proxies, Tls, TlsConfig};
use millrace_testkit::{SigningKey, jwk_set};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

/// Tokens by the keys at a URL; none without one.
pub(crate) fn settings(jwks_url: String) -> JwtConfig {
    JwtConfig {
        jwks_file: "".into(),
        jwks_url,
        jwks_ca_file: "".into(),
        jwks_refresh_interval: Span::from_secs(300),
        issuer: "i".into(),
        audience: "a".into(),
        leeway: Span::from_secs(60),
        principal_claim: "sub".into(),
        scope_claims: vec!["scope".into()],
    }
}

/// An issuer's server, over TLS.
struct Issuer {
    /// What it serves, if anything.
    body: Arc<Mutex<Option<String>>>,
    reads: Arc<AtomicUsize>,
    /// Whether its answers wait.
    held: watch::Sender<bool>,
    directory: TempDir,
    port: u16,
    stop: CancellationToken,
    _stop: DropGuard,
}

impl Issuer {
    async fn start(keys: &[&SigningKey]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let file = |name: &str, content: String| {
            let path = directory.path().join(name);
            fs::write(&path, content).unwrap();
            path
        };
        let certificate_file = file("cert.pem", made.cert.pem());
        let key_file = file("key.pem", made.signing_key.serialize_pem());
        file("keys.toml", String::new());
        let config = TlsConfig { certificate_file, key_file, terminated_upstream: false, ..TlsConfig::default() };
        let (health, stop) = (Health::new(), CancellationToken::new());
        let tls = Tls::start(&config, &health, stop.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (body, reads) = (Arc::new(Mutex::new(Some(jwk_set(keys)))), Arc::new(AtomicUsize::new(0)));
        let (served, counted) = (body.clone(), reads.clone());
        let (held, gate) = watch::channel(false);
        let answer = async move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = gate.clone().wait_for(|held| !held).await;
            served.lock().unwrap().clone().ok_or(StatusCode::NOT_FOUND)
        };
        let router = Router::new().route("/jwks", get(answer));
        let (auth, proxies, cors) = (Authenticator::off(), Proxies::default(), Cors::default());
        let context = ServiceContext { health, stop: stop.clone(), auth, tls, proxies, cors };
        tokio::spawn(context.serve_http(listener, router, HttpLimits::default(), async || {}));
        Self { body, reads, held, directory, port, stop: stop.clone(), _stop: stop.drop_guard() }
    }

    fn serve(&self, body: Option<String>) {
        *self.body.lock().unwrap() = body;
    }

    fn reads(&self) -> usize {
        self.reads.load(Ordering::SeqCst)
    }

    /// A router behind [`Self::authenticator`].
    fn authentication(&self, authorities: &str, health: &Health) -> Router {
        behind(&self.authenticator(authorities, health))
    }

    /// Authentication by its tokens, trusting the certificates in a file.
    fn authenticator(&self, authorities: &str, health: &Health) -> Authenticator {
        let file = |name| self.directory.path().join(name);
        let jwt =
            JwtConfig { jwks_ca_file: file(authorities), ..settings(format!("https://localhost:{}/jwks", self.port)) };
        let config = AuthConfig {
            mode: AuthMode::Keys,
            allow_off_beyond_loopback: false,
            allowed_hosts: Vec::new(),
            keys_file: file("keys.toml"),
            process_key_file: "".into(),
            jwt,
            max_failure_rate_per_ip: 1,
            limits: PrincipalLimits::NONE,
        };
        Authenticator::start(&config, health, self.stop.clone()).unwrap()
    }
}

fn behind(auth: &Authenticator) -> Router {
    auth.protect(Router::new().route("/status", get(async || "in")))
}

fn token(key: &SigningKey) -> String {
    let exp = Clock::system().now_ms() / 1_000 + 600;
    key.sign(&json!({"iss": "i", "aud": "a", "sub": "ann", "exp": exp, "scope": "counts:read"}))
}

/// The status of a request from an address, if it has one: without one, failures are not counted.
async fn answer(router: Router, credential: String, peer: Option<Peer>) -> u16 {
    let mut request = Request::get("/status").header(AUTHORIZATION, format!("Bearer {credential}"));
    if let Some(peer) = peer {
        request = request.extension(peer);
    }
    router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap().status().as_u16()
}

async fn status(router: &Router, key: &SigningKey) -> u16 {
    answer(router.clone(), token(key), None).await
}

/// The text of `/readyz` of the admin listener.
async fn ready(health: &Health) -> String {
    let request = Request::get("/readyz").body(Body::empty()).unwrap();
    let response = millrace_service::admin::router(health).oneshot(request).await.unwrap();
    String::from_utf8(axum::body::to_bytes(response.into_body(), 4_096).await.unwrap().to_vec()).unwrap()
}

/// Waits until the warnings of the health contain a text.
async fn wait_ready(health: &Health, part: &str) {
    for _ in 0..600 {
        if ready(health).await.contains(part) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("no {part} in {}", ready(health).await);
}

#[tokio::test]
async fn an_unknown_key_has_them_read_again_once_a_minute() {
    let (first, second, third) = (SigningKey::es256("1"), SigningKey::eddsa("2"), SigningKey::es256("3"));
    let issuer = Issuer::start(&[&first]).await;
    let health = Health::new();
    let router = issuer.authentication("cert.pem", &health);
    // Until the first read has ended nobody can say whether a token is valid.
    while status(&router, &first).await == 503 {
        tokio::task::yield_now().await;
    }
    assert_eq!((status(&router, &first).await, issuer.reads()), (200, 1));
    issuer.serve(Some(jwk_set(&[&first, &second])));
    assert_eq!(status(&router, &second).await, 200, "the request waits for the new keys");
    assert_eq!(issuer.reads(), 2);
    for _ in 0..10 {
        assert_eq!(status(&router, &third).await, 401);
    }
    assert_eq!(issuer.reads(), 2, "made up key ids cause no more reads");
}

#[tokio::test]
async fn only_tokens_of_unknown_keys_wait_for_a_read_and_few_of_an_address() {
    let (first, second, third) = (SigningKey::es256("1"), SigningKey::es256("2"), SigningKey::es256("3"));
    let issuer = Issuer::start(&[&first]).await;
    let health = Health::new();
    let auth = issuer.authenticator("cert.pem", &health);
    let router = behind(&auth);
    while status(&router, &first).await == 503 {
        tokio::task::yield_now().await;
    }
    issuer.serve(Some(jwk_set(&[&first, &second])));
    issuer.held.send_replace(true);
    let peer = Some(Peer(Ipv4Addr::LOCALHOST.into()));
    let waits = tokio::spawn(answer(router.clone(), token(&second), peer));
    while issuer.reads() < 2 {
        tokio::task::yield_now().await;
    }
    // The read outlasts none of these: it would time out, and the token that waits for it be refused.
    assert_eq!(answer(router.clone(), "mk_mistyped".to_owned(), None).await, 401);
    assert_eq!(answer(router.clone(), "not.a.token".to_owned(), None).await, 401);
    assert_eq!(status(&router, &first).await, 200);
    let flood = (0..3).map(|_| Box::pin(answer(router.clone(), token(&third), peer)));
    assert_eq!(select_all(flood).await.0, 429, "one failure a second");
    let unknown = auth.identify(Credential::Bearer(&token(&third)));
    assert_eq!(unknown.err(), Some(Denial::UnknownKey), "a session may come again");
    issuer.held.send_replace(false);
    assert_eq!(waits.await.unwrap(), 200);
    let unknown = auth.identify(Credential::Bearer(&token(&third)));
    assert_eq!(unknown.err(), Some(Denial::Invalid), "the issuer has no such key");
}

#[tokio::test]
async fn what_cannot_be_read_leaves_the_last_keys() {
    let (first, second) = (SigningKey::es256("1"), SigningKey::es256("2"));
    for (broken, problem) in
        [(None, "404"), (Some("{}".to_owned()), "not a JWK set"), (Some(" ".repeat(300 << 10)), "at most 256 KiB")]
    {
        let issuer = Issuer::start(&[&first]).await;
        let health = Health::new();
        let router = issuer.authentication("cert.pem", &health);
        while status(&router, &first).await == 503 {
            tokio::task::yield_now().await;
        }
        issuer.serve(broken);
        assert_eq!(status(&router, &second).await, 401);
        wait_ready(&health, problem).await;
        assert_eq!(status(&router, &first).await, 200);
    }
}

#[tokio::test]
async fn a_server_that_nobody_vouches_for_is_not_read() {
    let key = SigningKey::es256("1");
    let issuer = Issuer::start(&[&key]).await;
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(issuer.directory.path().join("other.pem"), other.cert.pem()).unwrap();
    let health = Health::new();
    let router = issuer.authentication("other.pem", &health);
    wait_ready(&health, "no connection: ").await;
    assert_eq!((status(&router, &key).await, issuer.reads()), (503, 0));
    assert!(ready(&health).await.starts_with("ready\n"), "keys are of use without it");
}
