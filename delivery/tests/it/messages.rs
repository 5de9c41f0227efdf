//! The messages of another log than the one that the cursors are of.

use millrace_contracts::Topic;
use millrace_contracts::topics::{CallError, Request, StateEntry, TopicStateKey};
use millrace_log::{Batch, Limits, NewRecord, Outcome, PollOutcome};

use crate::fixture::{Fixture, Running, until};

/// Up to which offset of `messages` the state reaches.
async fn covered(fixture: &Fixture) -> i64 {
    let log = fixture.log.clone();
    let read = move || {
        let mut reader = log.reader(Topic::TOPIC_STATE, &[(0, 0)]).unwrap();
        let (mut batch, mut covered) = (Batch::default(), -1);
        loop {
            match reader.poll(&mut batch, Limits::default()).unwrap() {
                PollOutcome::CaughtUp { .. } => return covered,
                PollOutcome::Nothing => {}
                PollOutcome::Records => {
                    let is_heads = |key| TopicStateKey::parse(key) == Some(TopicStateKey::Heads(0));
                    for value in batch.iter().filter(|record| is_heads(record.key)).filter_map(|record| record.value) {
                        let Ok(StateEntry::Covered(entry)) = StateEntry::decode(value) else { panic!("another entry") };
                        assert!(entry.last_record.is_some());
                        covered = entry.offset;
                    }
                }
            }
        }
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// A cursor names offsets: in a log that lost its end, or another one, messages below it would never be handed out.
#[tokio::test(flavor = "multi_thread")]
async fn the_messages_of_another_log_are_refused() {
    let Some(mut fixture) = Fixture::kafka("another log of messages").await else { return };
    let running = fixture.start();
    running.create(None).await;
    let mut last = 0;
    for number in 0..3 {
        last = running.publish(&number.to_string()).await.cast_signed();
    }
    until("the state covers them", async || covered(&fixture).await >= last).await;
    running.end().await;
    // The next coordinator finds what this one left.
    let running = fixture.start();
    running.call(Request::DescribeTopic).await;
    running.end().await;

    fixture.recreate(Topic::MESSAGES).await;
    let refused = async |running: &Running| {
        let Err(CallError::Refused(refusal)) = running.try_call(Request::DescribeTopic).await else {
            panic!("not refused")
        };
        assert!(refusal.detail.contains("restore `messages` from a backup"), "{refusal}");
        refusal.detail.into_owned()
    };
    let running = fixture.start();
    assert!(refused(&running).await.contains("holds offsets 0 to 0"));
    running.end().await;
    let filler = NewRecord { topic: Topic::MESSAGES, partition: 0, key: b"t", value: b"v" };
    until("as many records were appended", async || {
        let appended = fixture.log.append(&[filler]).await;
        matches!(appended[0], Outcome::Acknowledged(offset) if offset.cast_signed() > last + 5)
    })
    .await;
    let running = fixture.start();
    assert!(refused(&running).await.contains("is not the one that was written last"));
    running.end().await;
}
