//! Samples to endpoints that do not answer.

use std::time::Duration;

use futures::future::join_all;
use millrace_contracts::Code;
use millrace_contracts::topics::{CallError, Reply, Request};
use tokio::net::TcpListener;

use crate::fixture::{Fixture, name};

/// Of those at the same time.
const MAX_SAMPLES: usize = 16;

#[tokio::test(flavor = "multi_thread")]
async fn samples_in_flight_are_bounded() {
    let endpoint = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fixture = Fixture::embedded().await;
    let running = fixture.start();
    let push = format!(r#"{{"url": "http://{}/", "timeout": "5s"}}"#, endpoint.local_addr().unwrap());
    running.create(Some(&push)).await;
    let sample = async || running.try_call(Request::Sample(name("s"))).await;
    let sent = join_all((0..=MAX_SAMPLES).map(|_| sample())).await;
    let (served, refused): (Vec<_>, Vec<_>) = sent.into_iter().partition(Result::is_ok);
    assert_eq!((served.len(), refused.len()), (MAX_SAMPLES, 1), "{refused:?}");
    let Err(CallError::Refused(refusal)) = &refused[0] else { panic!("{refused:?}") };
    assert_eq!((refusal.code, refusal.retry_after), (Code::Overloaded, Some(Duration::from_secs(1))));
    let Ok(Reply::Sample(sample)) = sample().await else { panic!("a place is free again") };
    assert!(sample.error.is_some());
    running.end().await;
}
