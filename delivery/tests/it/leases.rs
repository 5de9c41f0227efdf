//! What the end of a lease comes to, with the clock under the test's control.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use millrace_base::Clock;
use millrace_contracts::Code;
use millrace_contracts::topics::{CallError, Delivery, Pull, Reply, Request};

use crate::fixture::{Fixture, Running, name};

const LEASE_MS: u64 = 60_000;

async fn pull(running: &Running) -> Option<Delivery> {
    let pull = Pull { subscription: name("s"), max: 1, wait_ms: 0, lease_ms: Some(LEASE_MS) };
    let Reply::Messages(messages) = running.call(Request::Pull(pull)).await else { panic!("no messages") };
    messages.into_iter().next()
}

/// Whoever notices the end first: a reader that comes too late takes nothing from the next one.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_handed_out_again_after_its_reader_came_too_late() {
    let fixture = Fixture::embedded().await;
    let time = Arc::new(AtomicI64::new(Clock::system().now_ms()));
    let clock = {
        let time = time.clone();
        Clock::new(move || time.load(Ordering::SeqCst))
    };
    let running = fixture.start_at(clock);
    running.create(None).await;
    running.publish("m").await;
    let extend = |tokens| Request::Extend { subscription: name("s"), tokens, lease_ms: LEASE_MS };
    let nack = |tokens| Request::Nack { subscription: name("s"), tokens, delay_ms: None };
    let late: [&dyn Fn(Vec<String>) -> Request; 2] = [&extend, &nack];
    for (attempt, late) in (1..).zip(late) {
        let leased = pull(&running).await.expect("a message");
        assert_eq!(leased.attempt, attempt);
        assert!(pull(&running).await.is_none(), "its lease hides it");
        time.fetch_add(LEASE_MS.cast_signed(), Ordering::SeqCst);
        let answer = running.try_call(late(vec![leased.token])).await;
        assert!(matches!(answer, Err(CallError::Refused(refusal)) if refusal.code == Code::StaleToken));
    }
    assert_eq!(pull(&running).await.map(|message| message.attempt), Some(3));
    running.end().await;
}
