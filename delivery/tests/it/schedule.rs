//! A schedule of days, with the clock under the test's control.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use axum::Router;
use http::{HeaderMap, StatusCode};
use millrace_base::Clock;
use millrace_contracts::topics::{PushPatch, Reply, Request, Start, SubscriptionSettings, TopicSettings, Verdict};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::fixture::{Fixture, PATIENCE, Running, name, until};

/// The pauses of the schedule `webhook`, in s: more than three days.
const WEBHOOK: [i64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
const MONTH_MS: u64 = 30 * 86_400_000;

/// An endpoint that fails until it is told otherwise.
struct Endpoint {
    url: String,
    works: Arc<AtomicBool>,
    /// The id of each message that came, and when by the test's clock.
    arrivals: mpsc::UnboundedReceiver<(String, i64)>,
}

impl Endpoint {
    async fn listen(clock: Clock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let works = Arc::new(AtomicBool::new(false));
        let (sent, arrivals) = mpsc::unbounded_channel();
        let answers = works.clone();
        let app = Router::new().fallback(move |headers: HeaderMap| {
            let id = headers["webhook-id"].to_str().unwrap().to_owned();
            let _ = sent.send((id, clock.now_ms()));
            let works = answers.load(Ordering::SeqCst);
            async move { if works { StatusCode::NO_CONTENT } else { StatusCode::INTERNAL_SERVER_ERROR } }
        });
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, works, arrivals }
    }

    async fn next(&mut self) -> (String, i64) {
        tokio::time::timeout(PATIENCE, self.arrivals.recv()).await.expect("an attempt").unwrap()
    }
}

/// When a message is sent again after so many failures, once the last one is recorded.
async fn next_attempt_ms(running: &Running, offset: u64, failures: u32) -> i64 {
    let mut next_ms = None;
    until("the failure is recorded", async || {
        let request = Request::Explain { subscription: name("s"), offset };
        let Reply::Explanation(explained) = running.call(request).await else { panic!("no explanation") };
        let in_retry = explained.verdict == Verdict::InRetry && explained.attempts == Some(failures);
        next_ms = explained.next_attempt_ms.filter(|_| in_retry);
        next_ms.is_some()
    })
    .await;
    next_ms.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_of_days_outlives_its_coordinators() {
    let fixture = Fixture::embedded().await;
    let time = Arc::new(AtomicI64::new(Clock::system().now_ms()));
    let clock = {
        let time = time.clone();
        Clock::new(move || time.load(Ordering::SeqCst))
    };
    let mut endpoint = Endpoint::listen(clock.clone()).await;
    let mut running = fixture.start_at(clock.clone());
    let description = String::new();
    let settings = TopicSettings { retention_ms: MONTH_MS, delay_ms: 0, max_message_bytes: 1_000, description };
    running.call(Request::CreateTopic { settings, grants: BTreeMap::new() }).await;
    let push = format!(r#"{{"url": "{}", "schedule": "webhook", "max_age": "30d"}}"#, endpoint.url);
    let push = PushPatch { push: Some(true), settings: Some(push) };
    let (subscription, settings) = (name("s"), SubscriptionSettings::default());
    running.call(Request::CreateSubscription { subscription, settings, push, start: Start::Latest }).await;
    let offset = running.publish("m").await;
    let mut due_ms = time.load(Ordering::SeqCst);
    for (failures, pause_s) in (1..).zip(WEBHOOK) {
        let (id, at_ms) = endpoint.next().await;
        assert_eq!((&*id, at_ms), ("m", due_ms), "attempt {failures}");
        due_ms = next_attempt_ms(&running, offset, failures).await;
        let pause_ms = due_ms - at_ms;
        assert!((pause_s * 800..=pause_s * 1_200).contains(&pause_ms), "attempt {failures}: {pause_ms}");
        // What the next coordinator knows of it, it has from the log.
        if failures % 2 == 0 {
            running.end().await;
            running = fixture.start_at(clock.clone());
            assert_eq!(next_attempt_ms(&running, offset, failures).await, due_ms);
        }
        endpoint.works.store(failures == 9, Ordering::SeqCst);
        // Up to now the time stood still; nothing is sent before it is due.
        time.store(due_ms, Ordering::SeqCst);
    }
    assert_eq!(endpoint.next().await, ("m".to_owned(), due_ms));
    until("it is settled", async || {
        let request = Request::DescribeSubscription(name("s"));
        let Reply::Subscription { subscription, .. } = running.call(request).await else { panic!("no subscription") };
        (subscription.backlog, subscription.in_retry) == (0, 0)
    })
    .await;
    assert!(endpoint.arrivals.try_recv().is_err(), "each attempt was made once");
    running.end().await;
}
