//! What stands between a client and the handlers: proxies, and pages of other origins.

use std::net::SocketAddr;

use axum::Router;
use axum::routing::get;
use millrace_base::Size;
use millrace_service::ServiceContext;
use millrace_service::auth::{ApiKey, AuthConfig, AuthMode, Authenticator, KeyEntry, KeyFile, PrincipalLimits, Scope};
use millrace_service::cors::{Cors, CorsConfig};
use millrace_service::health::Health;
use millrace_service::http::HttpLimits;
use millrace_service::net::{ForwardingHeader, Proxies, ProxyConfig};
use millrace_testkit::{AsyncConnection, Response, request};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

async fn start(auth: Authenticator, proxies: &[&str], origins: &[&str], limits: HttpLimits) -> (SocketAddr, DropGuard) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let trusted_networks = proxies.iter().map(|network| network.parse().unwrap()).collect();
    let proxies = ProxyConfig { trusted_networks, forwarding_header: ForwardingHeader::XForwardedFor };
    let cors = CorsConfig { allow_origins: origins.iter().map(ToString::to_string).collect() };
    let context = ServiceContext {
        health: Health::new(),
        stop: stop.clone(),
        auth,
        tls: None,
        proxies: Proxies::new(&proxies),
        cors: Cors::new(&cors),
    };
    let router = Router::new().route("/analytics", get(async || "ok").post(async || "ok"));
    let router = router.route("/status", get(async || "ok"));
    tokio::spawn(context.serve_http(listener, router, limits, async || {}));
    (address, stop.drop_guard())
}

async fn send(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)]) -> Response {
    let headers = [&[("connection", "close")], headers].concat();
    AsyncConnection::open(address).await.exchange(request(method, path, &headers, "")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn rates_per_address_are_those_of_the_client_behind_trusted_proxies() {
    let limits = HttpLimits { max_request_rate_per_ip: 1, ..HttpLimits::default() };
    let (address, _stop) = start(Authenticator::off(), &["127.0.0.0/8"], &[], limits.clone()).await;
    let from = async |client: &str| send(address, "GET", "/analytics", &[("x-forwarded-for", client)]).await;
    // Whatever it writes itself, it is the same client.
    let mut limited = false;
    for n in 0..1_000 {
        limited |= from(&format!("1.1.{}.1, 192.0.2.7", n % 250)).await.status == 429;
        if limited {
            break;
        }
    }
    assert!(limited);
    assert_eq!(from("192.0.2.8").await.status, 200, "another client of the same proxy");

    let (address, _stop) = start(Authenticator::off(), &[], &[], limits).await;
    let mut limited = false;
    for n in 0..1_000 {
        let forged = format!("1.1.{}.1", n % 250);
        limited |= send(address, "GET", "/analytics", &[("x-forwarded-for", &forged)]).await.status == 429;
        if limited {
            break;
        }
    }
    assert!(limited, "nobody is trusted");
}

/// With one key for reading, which is returned.
fn with_key(directory: &std::path::Path) -> (Authenticator, ApiKey, DropGuard) {
    let (keys_file, key) = (directory.join("keys.toml"), ApiKey::generate().unwrap());
    let entry = KeyEntry::new(&key, "page", &[Scope::CountsRead], "2026-11-21T08:00:00Z".parse().unwrap(), None);
    KeyFile::change(&keys_file, |file| {
        file.keys.push(entry?);
        Ok(())
    })
    .unwrap();
    let config = AuthConfig {
        mode: AuthMode::Keys,
        allow_off_beyond_loopback: false,
        allowed_hosts: Vec::new(),
        keys_file,
        process_key_file: std::path::PathBuf::new(),
        max_failure_rate_per_ip: 0,
        limits: PrincipalLimits { max_request_rate: 1_000, max_event_rate: 0, max_byte_rate: Size(0) },
        jwt: crate::jwks::settings(String::new()),
    };
    let stop = CancellationToken::new();
    (Authenticator::start(&config, &Health::new(), stop.clone()).unwrap(), key, stop.drop_guard())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_configured_origins_may_use_events_and_counts_alone() {
    const SHOP: &str = "https://shop.example";
    let directory = tempfile::tempdir().unwrap();
    let (auth, key, _auth) = with_key(directory.path());
    let (address, _stop) = start(auth.clone(), &[], &[SHOP, "http://localhost:3000"], HttpLimits::default()).await;
    let preflight = async |path: &str, origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type"),
        ];
        send(address, "OPTIONS", path, &headers).await
    };
    let allowed = preflight("/analytics", SHOP).await;
    assert_eq!((allowed.status, allowed.header("access-control-allow-origin")), (200, Some(SHOP)));
    assert!(allowed.header("access-control-allow-headers").unwrap().contains("authorization"));
    assert!(allowed.header("access-control-allow-methods").unwrap().contains("POST"));
    assert_eq!((allowed.header("access-control-max-age"), allowed.header("vary")), (Some("600"), Some("origin")));
    for (path, origin) in
        [("/analytics", "https://evil.example"), ("/analytics", "null"), ("/status", SHOP), ("/nothing", SHOP)]
    {
        let refused = preflight(path, origin).await;
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, None), "{path} {origin}");
    }

    let bearer = format!("Bearer {}", key.expose());
    let get = async |path: &str, origin: &str| {
        send(address, "GET", path, &[("origin", origin), ("authorization", &bearer)]).await
    };
    let shop = get("/analytics", SHOP).await;
    assert_eq!(
        (shop.status, shop.header("access-control-allow-origin"), shop.header("vary")),
        (200, Some(SHOP), Some("origin"))
    );
    let exposed = shop.header("access-control-expose-headers").unwrap();
    assert!(["retry-after", "ratelimit", "millrace-position"].iter().all(|name| exposed.contains(name)), "{exposed}");
    let evil = get("/analytics", "https://evil.example").await;
    assert_eq!(
        (evil.status, evil.header("access-control-allow-origin"), evil.header("vary")),
        (200, None, Some("origin"))
    );
    assert_eq!(get("/status", SHOP).await.header("access-control-allow-origin"), None);
    let without = send(address, "GET", "/analytics", &[("origin", SHOP)]).await;
    assert_eq!(
        (without.status, without.header("access-control-allow-origin")),
        (401, Some(SHOP)),
        "a page can read why"
    );
    for response in [&allowed, &shop, &evil, &without] {
        assert_eq!(response.header("access-control-allow-credentials"), None);
    }

    let (address, _stop) = start(auth, &[], &[], HttpLimits::default()).await;
    let none = send(address, "GET", "/analytics", &[("origin", SHOP), ("authorization", &bearer)]).await;
    assert_eq!((none.status, none.header("access-control-allow-origin"), none.header("vary")), (200, None, None));
}
