//! Offsets are fenced by the assignment that the worker has seen, on a real broker: the mock cluster fences nothing.

use std::time::{Duration, Instant};

use millrace_contracts::{Names, Topic};

use super::KafkaLog;
use super::config::tests::config;
use super::member::{Member, Rebalance};
use super::transaction::{Purpose, TransactionError, TransactionalProducer};
use crate::metric::Abort;

const PATIENCE: Duration = Duration::from_secs(30);

fn until(what: &str, mut answer: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !answer() {
        assert!(Instant::now() < deadline, "never: {what}");
    }
}

/// Polls until the assignment changes, and completes the rebalance.
fn rebalanced(member: &Member) {
    until("the assignment changes", || {
        member.poll(Duration::from_millis(10), |_| {}).unwrap();
        member.changed()
    });
    if member.take_rebalances().iter().any(|one| matches!(one, Rebalance::Assigned(_))) {
        member.read(&[]).unwrap();
    }
}

fn commit(producer: &mut TransactionalProducer, member: &Member) -> Result<(), TransactionError> {
    let transaction = producer.begin(Purpose::Step)?;
    match transaction.offsets(member.group_metadata(), &member.offsets([(0, 0)])) {
        Ok(()) => transaction.commit(),
        Err(error) => Err(transaction.failed(Abort::Offsets, error)),
    }
}

/// librdkafka joins the group again by itself: what it has then, the worker has not seen yet.
#[test]
fn offsets_are_fenced_by_the_assignment_that_the_worker_has_seen() {
    let Some(brokers) = millrace_testkit::kafka("log: generations") else { return };
    let names = Names::new(&format!("{}.", millrace_testkit::unique("generations"))).unwrap();
    let (config, group) = (config(brokers), names.group("group"));
    let log = KafkaLog::open(config.clone(), names.clone()).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(log.create_topics()).unwrap();
    let join = |name| Member::join(&config.member(&group, name, 0), &names.topic(&Topic::EVENTS)).unwrap();
    let mut producer = TransactionalProducer::open(&config, &names.transactional_id("group", "one", 0)).unwrap();
    let member = join("one");
    rebalanced(&member);
    commit(&mut producer, &member).unwrap();
    // It gets its assignment together with the first member, which is not polled.
    let other = join("two");
    rebalanced(&other);
    let fenced = commit(&mut producer, &member);
    assert!(matches!(fenced, Err(TransactionError::Aborted(Abort::Offsets, _))), "{fenced:?}");
    rebalanced(&member);
    until("the step commits", || {
        member.poll(Duration::from_millis(10), |_| {}).unwrap();
        if member.changed() {
            rebalanced(&member);
        }
        commit(&mut producer, &member).is_ok()
    });
}
