//! A subscription that lags behind the ring: the index first, then a scan of what it does not reach, then the ring.

use millrace_base::Size;
use millrace_contracts::ProjectionWrite;
use millrace_contracts::topics::{AckSelection, Message, Name, Pull, Request, Start, partition_of_topic};
use millrace_log::{Batch, PollOutcome};
use millrace_store::{IndexRow, IndexStep};

use super::tests::Running;
use super::*;

const MESSAGES: usize = 120;
/// How many of them the index reaches.
const INDEXED: usize = 60;

/// The offsets of a topic's messages, and the topic's id.
async fn offsets(log: &Log, partition: u32, topic: &'static str) -> (Vec<u64>, u64) {
    let log = log.clone();
    let read = move || {
        let mut reader = log.reader(Topic::MESSAGES, &[(partition, 0)]).unwrap();
        let (mut batch, mut offsets, mut topic_id) = (Batch::default(), Vec::new(), 0);
        loop {
            match reader.poll(&mut batch, Limits::default()).unwrap() {
                PollOutcome::CaughtUp { .. } => return (offsets, topic_id),
                PollOutcome::Nothing => {}
                PollOutcome::Records => {
                    for record in batch.iter().filter(|record| record.key == topic.as_bytes()) {
                        topic_id = Message::decode(record.value.unwrap()).unwrap().topic_id;
                        offsets.push(record.offset);
                    }
                }
            }
        }
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// What a subscription gets that reads [`MESSAGES`] messages, numbered, between as many of another topic. `select` has the
/// number of a message that the index has, `last_record` is the identity of the record before its position.
async fn received(select: impl Fn(usize) -> bool, last_record: Option<u64>) -> Vec<usize> {
    let mut opened = None;
    let running = Running::with(Size::from_mib(1), |log, config| {
        let index = MessageIndex::embedded(log.database()).unwrap();
        (config.ring_bytes, config.index) = (4 << 10, Some(index.clone()));
        opened = Some(index);
    })
    .await;
    let index = opened.unwrap();
    let partition = partition_of_topic(&Name::parse("t").unwrap(), 3);
    let names = (0..).map(|number| format!("other-{number}"));
    let mut others = names.filter(|name| partition_of_topic(&Name::parse(name).unwrap(), 3) == partition);
    let other = others.next().unwrap();
    running.create("t").await;
    running.create(&other).await;
    running.subscribe("t", "s", Start::Latest).await;
    for number in 0..MESSAGES {
        running.publish("t", &number.to_string()).await;
        running.publish(&other, "of another topic").await;
    }
    let shared = &running.coordinators.0;
    let shard = shared.shard(partition).unwrap();
    pull::reach_end(shared, &shard).await.unwrap();
    let (own, topic_id) = offsets(&shared.log, partition, "t").await;
    assert_eq!(own.len(), MESSAGES);
    let next = own[INDEXED];
    assert!(shard.lock().ring.as_ref().unwrap().first().cast_unsigned() > own[INDEXED + 1], "the ring evicted them");
    let indexed: Vec<u64> = (0..INDEXED).filter(|number| select(*number)).map(|number| own[number]).collect();
    let rows = indexed.chunks(7).map(|offsets| IndexRow { topic_id, offsets: offsets.to_vec() }).collect();
    let step = IndexStep { day: 1, rows, owner: None };
    let write =
        ProjectionWrite { partition, expected: None, next, last_record, caught_up: true, counted: None, items: &step };
    index.write(&[write]).await.unwrap();

    let name = || Name::parse("s").unwrap();
    let mut bodies = Vec::new();
    loop {
        let pull = Pull { subscription: name(), max: 7, wait_ms: 0, lease_ms: None };
        let messages = running.messages("t", Request::Pull(pull)).await;
        if messages.is_empty() {
            return bodies;
        }
        bodies.extend(
            messages.iter().map(|message| std::str::from_utf8(&message.body).unwrap().parse::<usize>().unwrap()),
        );
        let selection = AckSelection::Tokens(messages.into_iter().map(|message| message.token).collect());
        running.call("t", Request::Ack { subscription: name(), selection }).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_laggard_gets_every_message_once_in_order_through_the_seams() {
    assert_eq!(received(|_| true, None).await, (0..MESSAGES).collect::<Vec<_>>());
}

/// So it does not read over what is of other topics; and the index decides nothing beyond its position.
#[tokio::test(flavor = "multi_thread")]
async fn a_laggard_fetches_what_the_index_names_and_nothing_else() {
    let expected: Vec<usize> = (0..INDEXED).step_by(2).chain(INDEXED..MESSAGES).collect();
    assert_eq!(received(|number| number % 2 == 0, None).await, expected);
}

/// Its position reaches past messages that it does not name.
#[tokio::test(flavor = "multi_thread")]
async fn a_laggard_does_not_use_the_index_of_another_log() {
    assert_eq!(received(|_| false, Some(7)).await, (0..MESSAGES).collect::<Vec<_>>());
}
