//! Processors that start and stop under load. No number changes, and no partition waits for the session of one that left.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use millrace_contracts::{Names, Topic};
use millrace_log::{Batch, KafkaLog, Limits, Log, PollOutcome};
use millrace_testkit::wait_until;

use crate::cluster::{Cluster, assert_right};

const PARTITIONS: u32 = 12;
/// A member that left without `LeaveGroup` would keep its partitions for this long.
const SESSION: &str = "60s";
/// A longer pause is a failure: a rebalance takes a second or two, a little more on a busy machine.
const STILL: Duration = Duration::from_secs(30);

/// The last change of the counts of each partition, and their longest pause.
type Moves = BTreeMap<u32, (Instant, Duration)>;

/// Follows the counts of every partition, like any reader.
struct Follower {
    moves: Arc<Mutex<Moves>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    fn start(cluster: &Cluster) -> Self {
        let defaults: toml::Table = toml::from_str(include_str!("../../default.toml")).unwrap();
        let mut kafka = defaults["kafka"].as_table().unwrap().clone();
        kafka.insert("brokers".into(), cluster.setting("kafka.brokers").into());
        let names = Names::new(cluster.setting("prefix")).unwrap();
        let log = Log::Kafka(KafkaLog::open(kafka.try_into().unwrap(), names).unwrap());
        let began = Instant::now();
        let moves: Moves = (0..PARTITIONS).map(|partition| (partition, (began, Duration::ZERO))).collect();
        let (moves, stop) = (Arc::new(Mutex::new(moves)), Arc::new(AtomicBool::new(false)));
        let (into, stopped) = (moves.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            let from: Vec<(u32, u64)> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
            let mut reader = log.reader(Topic::HOURLY, &from).unwrap();
            let mut batch = Batch::default();
            while !stopped.load(Ordering::Relaxed) {
                if matches!(reader.poll(&mut batch, Limits::default()).unwrap(), PollOutcome::Records) {
                    let mut moves = into.lock().unwrap();
                    let (last, longest) = moves.get_mut(&batch.partition()).unwrap();
                    *longest = (*longest).max(last.elapsed());
                    *last = Instant::now();
                }
            }
        });
        Self { moves, stop, thread: Some(thread) }
    }

    /// Waits until every partition has moved, from now on.
    fn wait_for_change(&self, what: &str) {
        let now = Instant::now();
        let still = || -> Vec<u32> {
            let moves = self.moves.lock().unwrap();
            moves.iter().filter(|(_, (last, _))| *last < now).map(|(&partition, _)| partition).collect()
        };
        assert!(wait_until(STILL, || still().is_empty()), "{what}: partitions {:?} stand still", still());
    }

    /// The longest pause of one partition since this was asked last.
    fn longest(&self) -> Duration {
        let mut moves = self.moves.lock().unwrap();
        moves.values_mut().map(|(_, longest)| std::mem::take(longest)).max().unwrap()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(std::thread::panicking() || matches!(ended, Some(Ok(()))), "the follower failed");
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "a measurement for who wants to see it")]
fn one_processor_becomes_four_and_then_two() {
    let suite = "processors that come and go";
    let Some(brokers) = millrace_testkit::kafka(suite) else { return };
    let unnamed = [("instance", ""), ("kafka.session_timeout", SESSION)];
    let Some(mut cluster) = Cluster::with(brokers, suite, 1, &unnamed) else { return };
    let arguments = ["--events", "60000", "--users", "10000", "--rate", "2000", "--connections", "32", "--seed", "23"];
    let load = cluster.load(&arguments);
    let follower = Follower::start(&cluster);
    follower.wait_for_change("one processor");
    follower.longest();
    for _ in 0..3 {
        cluster.add("processor");
    }
    cluster.all("processor").for_each(|processor| processor.wait_busy("millrace_processor_counted_total"));
    follower.wait_for_change("one became four");
    println!("one became four: no partition stood still for longer than {:?}", follower.longest());
    for _ in 0..2 {
        cluster.remove("processor");
    }
    follower.wait_for_change("four became two");
    println!("four became two: no partition stood still for longer than {:?}", follower.longest());
    assert_right(load, 60_000);
}
