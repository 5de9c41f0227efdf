//! `Host`: required and valid.

use std::net::{IpAddr, Ipv4Addr};

use axum::Router;
use axum::routing::get;
use millrace_service::auth::{AuthConfig, AuthMode, Authenticator, PrincipalLimits};
use millrace_service::health::Health;
use millrace_service::http::{HttpLimits, serve_hosts};
use millrace_service::net::reserve;
use millrace_testkit::AsyncConnection;
use tokio_util::sync::CancellationToken;

use crate::http2::{connect, get_request};
use crate::server::start;

fn router() -> Router {
    Router::new().route("/", get(async || "ok"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_one_valid_host() {
    let (address, _stop) = start(router(), HttpLimits::default());
    for (head, status) in [
        ("GET / HTTP/1.1\r\nHost: a.example:80\r\n", 200),
        ("GET / HTTP/1.0\r\n", 200),
        ("GET / HTTP/1.1\r\n", 400),
        ("GET http://a.example/ HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n", 400),
        ("GET / HTTP/1.1\r\nHost:\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n", 400),
        ("GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n", 400),
    ] {
        let response = AsyncConnection::open(address).await.exchange(format!("{head}Connection: close\r\n\r\n")).await;
        assert_eq!(response.status, status, "{head}: {response:?}");
        if status == 400 {
            let problem = response.json();
            assert_eq!((problem["code"].as_str(), problem["field"].as_str()), (Some("bad-request"), Some("host")));
        }
    }
}

/// In HTTP/2 the name is `:authority`; a `Host` beside it says the same.
#[tokio::test(flavor = "multi_thread")]
async fn the_names_of_an_http2_request_agree() {
    let (address, _stop) = start(router(), HttpLimits::default());
    for (authority, host, status) in
        [("a.example", None, 200), ("a.example", Some("A.example"), 200), ("a.example", Some("b.example"), 400)]
    {
        let mut client = connect(address, 1 << 16).await;
        let mut request = get_request("/");
        *request.uri_mut() = format!("http://{authority}/").parse().unwrap();
        if let Some(host) = host {
            request.headers_mut().insert("host", host.parse().unwrap());
        }
        let response = client.send_request(request, true).unwrap().0.await.unwrap();
        assert_eq!(response.status(), status, "{authority} {host:?}");
    }
}

/// A page of another site gives its name the address of this machine, and a browser here sends its requests.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_on_loopback_without_authentication_serves_known_hosts() {
    let config = AuthConfig {
        mode: AuthMode::Off,
        allow_off_beyond_loopback: false,
        allowed_hosts: vec!["proxy.example".into()],
        keys_file: "keys.toml".into(),
        process_key_file: "".into(),
        jwt: crate::jwks::settings(String::new()),
        max_failure_rate_per_ip: 0,
        limits: PrincipalLimits::NONE,
    };
    let auth = Authenticator::start(&config, &Health::new(), CancellationToken::new()).unwrap();
    let status = async |address: IpAddr, path: &str, host: &str| {
        let listener = reserve("test.listen", "127.0.0.1:0".parse().unwrap()).unwrap().listen().unwrap();
        let (served, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let router = router().merge(Health::new().router());
        let _guard = stop.clone().drop_guard();
        tokio::spawn(serve_hosts(listener, router, HttpLimits::default(), auth.hosts(address), stop));
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        AsyncConnection::open(served).await.exchange(request).await.status
    };
    let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
    for (host, expected) in [
        ("localhost:8081", 200),
        ("127.0.0.1", 200),
        ("[::1]:1", 200),
        ("192.0.2.1", 200),
        ("Proxy.example:80", 200),
        ("elsewhere.example", 403),
        ("127.0.0.1.example", 403),
        ("localhost.example", 403),
    ] {
        assert_eq!(status(loopback, "/", host).await, expected, "{host}");
    }
    assert_eq!(status(loopback, "/livez", "elsewhere.example").await, 200, "a probe");
    assert_eq!(status(Ipv4Addr::UNSPECIFIED.into(), "/", "elsewhere.example").await, 200, "in a container");
}
