//! Handshakes with endpoints that do not answer.

use std::time::Duration;

use futures::future::join_all;
use millrace_contracts::Code;
use millrace_contracts::topics::{CallError, PushPatch, Request, Start, SubscriptionSettings};
use tokio::net::TcpListener;

use crate::fixture::{Fixture, name};

/// Of those at the same time.
const MAX_HANDSHAKES: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_in_flight_are_bounded() {
    let endpoint = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fixture = Fixture::embedded().await;
    let running = fixture.start();
    running.create(None).await;
    let url = format!("http://{}/", endpoint.local_addr().unwrap());
    let subscribe = async |subscription: String| {
        let push = format!(r#"{{"url": "{url}", "timeout": "5s", "consent": true}}"#);
        let request = Request::CreateSubscription {
            subscription: name(&subscription),
            settings: SubscriptionSettings::default(),
            push: PushPatch { push: Some(true), settings: Some(push) },
            start: Start::Latest,
        };
        match running.try_call(request).await {
            Err(CallError::Refused(refusal)) => refusal,
            answered => panic!("{answered:?}"),
        }
    };
    let refused = join_all((0..=MAX_HANDSHAKES).map(|number| subscribe(format!("hook{number}")))).await;
    let (asked, busy): (Vec<_>, Vec<_>) = refused.into_iter().partition(|one| one.code == Code::ConsentRefused);
    assert_eq!((asked.len(), busy.len()), (MAX_HANDSHAKES, 1), "{busy:?}");
    assert_eq!((busy[0].code, busy[0].retry_after), (Code::Overloaded, Some(Duration::from_secs(1))));
    assert_eq!(subscribe("again".into()).await.code, Code::ConsentRefused, "a place is free again");
    running.end().await;
}
