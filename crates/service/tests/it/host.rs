//! `Host`: required and valid.

use axum::Router;
use axum::routing::get;
use millrace_service::http::HttpLimits;
use millrace_testkit::AsyncConnection;

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
