//! Messages that the log dropped while they were in retry.

use millrace_contracts::Topic;
use millrace_contracts::topics::{Redrive, RedriveFilter, Reply, Request};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::fixture::{Fixture, name, until};

/// It is given up with what the log dropped, and holds nothing up; its letter can be read again.
#[tokio::test(flavor = "multi_thread")]
async fn the_letter_of_a_redriven_message_that_the_log_dropped_is_on_the_list_again() {
    let Some(fixture) = Fixture::kafka("dropped messages").await else { return };
    let running = fixture.start();
    running.create(None).await;
    running.publish("first").await;
    let message = running.pull().await.unwrap();
    let nack = Request::Nack { subscription: name("s"), tokens: vec![message.token], delay_ms: Some(0) };
    running.call(nack).await;
    until("it is a dead letter", async || running.dead_letters().await.len() == 1).await;
    let letters = running.dead_letters().await;
    let redrive = Request::Redrive { subscription: name("s"), filter: RedriveFilter::default() };
    let Reply::Redriven { id, selected: 1 } = running.call(redrive).await else { panic!("not redriven") };
    assert_eq!(running.dead_letters().await, []);
    // The next coordinator has it in no memory.
    running.end().await;
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", fixture.brokers).create().unwrap();
    let mut all = TopicPartitionList::new();
    all.add_partition_offset(&fixture.topic(Topic::MESSAGES), 0, Offset::End).unwrap();
    admin.delete_records(&all, &AdminOptions::new()).await.unwrap();

    let running = fixture.start();
    let over = Redrive { selected: 1, failed: 1, ..Redrive::default() };
    until("the redrive is over", async || {
        let request = Request::DescribeRedrive { subscription: name("s"), id };
        let Reply::Redrive(redrive) = running.call(request).await else { panic!("no redrive") };
        Redrive { begun_ms: 0, ..redrive } == over
    })
    .await;
    assert_eq!(running.dead_letters().await, letters);
    running.publish("second").await;
    assert_eq!(running.pull().await.unwrap().id, "second");
    running.end().await;
}
