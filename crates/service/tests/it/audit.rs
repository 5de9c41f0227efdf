//! What has to be recorded is not done otherwise.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::routing::{get, put};
use http::{Method, Request, StatusCode};
use millrace_service::auth::Authenticator;
use tower::ServiceExt as _;

async fn send(router: &Router, method: Method, path: &str) -> StatusCode {
    let request = Request::builder().method(method).uri(path).header("host", "localhost").body(Body::empty()).unwrap();
    router.clone().oneshot(request).await.unwrap().status()
}

#[tokio::test]
async fn an_act_of_administration_that_cannot_be_recorded_is_not_done() {
    let done = Arc::new(AtomicUsize::new(0));
    let counted = done.clone();
    let act = async move || {
        counted.fetch_add(1, Ordering::SeqCst);
    };
    let routes = Router::new().route("/admin/rebuild", put(act)).route("/admin/topics", get(async || "read"));
    let auth = Authenticator::off();
    let router = auth.protect_admin(routes, Ipv4Addr::LOCALHOST.into());
    let rebuild = async || send(&router, Method::PUT, "/admin/rebuild").await;
    assert_eq!(rebuild().await, StatusCode::SERVICE_UNAVAILABLE, "the log is not open yet");
    assert_eq!(send(&router, Method::GET, "/admin/topics").await, StatusCode::OK, "nothing to record");

    let (writes, recorded) = (Arc::new(Mutex::new(false)), Arc::new(Mutex::new(Vec::new())));
    let (written, seen) = (writes.clone(), recorded.clone());
    auth.audit().attach(
        "i".into(),
        Box::new(move |record| {
            let written = *written.lock().unwrap();
            seen.lock().unwrap().push((record.action.to_owned(), record.outcome.as_str()));
            Box::pin(std::future::ready(written))
        }),
    );
    assert_eq!(rebuild().await, StatusCode::SERVICE_UNAVAILABLE, "the log refuses");
    assert_eq!(done.load(Ordering::SeqCst), 0);
    *writes.lock().unwrap() = true;
    assert_eq!(rebuild().await, StatusCode::OK);
    assert_eq!(done.load(Ordering::SeqCst), 1);
    let expected = ["begun", "begun", "done"].map(|outcome| ("store.rebuild".to_owned(), outcome));
    assert_eq!(*recorded.lock().unwrap(), expected);
}
