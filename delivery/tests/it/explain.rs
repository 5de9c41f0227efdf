//! The search for the dead letter of a message.

use millrace_base::Clock;
use millrace_contracts::Topic;
use millrace_contracts::topics::{AckSelection, DeadLetter, Reply, Request, Verdict};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::fixture::{Fixture, PATIENCE, Running, name, until};

async fn verdict(running: &Running, offset: u64) -> Verdict {
    let request = Request::Explain { subscription: name("s"), offset };
    let Reply::Explanation(explained) = running.call(request).await else { panic!("no explanation") };
    explained.verdict
}

/// Letters from before the message are not read: one that claims to be of it is not found.
#[tokio::test(flavor = "multi_thread")]
async fn the_search_begins_with_the_message() {
    let Some(fixture) = Fixture::kafka("searches of letters").await else { return };
    let running = fixture.start();
    running.create(None).await;
    let delivered = running.publish("delivered").await;
    let token = running.pull().await.unwrap().token;
    running.call(Request::Ack { subscription: name("s"), selection: AckSelection::Tokens(vec![token]) }).await;
    let Reply::Topic { topic, .. } = running.call(Request::DescribeTopic).await else { panic!("no topic") };
    let read = fixture.log.clone();
    let message = tokio::task::spawn_blocking(move || {
        let mut reader = read.reader(Topic::MESSAGES, &[(0, delivered)]).unwrap();
        let mut batch = millrace_log::Batch::default();
        while reader.poll(&mut batch, millrace_log::Limits::default()).unwrap() != millrace_log::PollOutcome::Records {}
        batch.iter().next().unwrap().value.unwrap().to_vec()
    })
    .await
    .unwrap();
    let hour_ago = Clock::system().now_ms() - 3_600_000;
    let letter = DeadLetter {
        topic_id: topic.id.offset,
        offset: delivered,
        dead_lettered_ms: hour_ago,
        reason: "max-attempts",
        attempts: 1,
        first_attempt_ms: None,
        last_attempt_ms: None,
        last_status: None,
        last_error: None,
        message: &message,
    };
    let mut value = Vec::new();
    letter.encode(&mut value);
    let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", fixture.brokers).create().unwrap();
    let topic = fixture.topic(Topic::DEAD_LETTERS);
    let record = BaseRecord::to(&topic).partition(0).key("t/s").payload(&value).timestamp(hour_ago);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    tokio::task::block_in_place(|| producer.flush(PATIENCE).unwrap());
    until("the letter is on the list", async || running.dead_letters().await.len() == 1).await;
    assert_eq!(verdict(&running, delivered).await, Verdict::Delivered);

    let given_up = running.publish("given-up").await;
    let token = running.pull().await.unwrap().token;
    running.call(Request::Nack { subscription: name("s"), tokens: vec![token], delay_ms: Some(0) }).await;
    until("its own letter is found", async || verdict(&running, given_up).await == Verdict::DeadLettered).await;
    running.end().await;
}
