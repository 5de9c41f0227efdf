//! Rows 28 to 30: every link of every role, partitioned and degraded; the brokers' replies to producers lost.

use std::thread;
use std::time::Duration;

use millrace_testkit::{Link, http_get};

use super::scenario::Scenario;
use crate::cluster::{Cluster, seconds};
use crate::report::Part;
use crate::watcher::target;

pub(super) const ROWS: &[Scenario] = &[
    Scenario {
        row: "28",
        what: "every link between a role and Kafka, Redis or PostgreSQL partitioned: both directions, each direction, flapping: typed errors, and recovery without intervention.",
        fail_points: false,
        own: None,
        play: partitions,
    },
    Scenario {
        row: "29",
        what: "every link slow (0.2 and 2 s), in slices of one byte, reset, half closed: timeouts fire, and at most two sends of one event.",
        fail_points: false,
        own: None,
        play: degraded,
    },
    Scenario {
        row: "30",
        what: "the brokers' replies to producers lost for longer than kafka.message_timeout: what is written twice counts once.",
        fail_points: false,
        own: None,
        play: lost_replies,
    },
];

/// One link of each kind.
fn links(cluster: &Cluster) -> Vec<String> {
    cluster.system.links().into_iter().filter(|name| !name.ends_with("-2") && !name.ends_with("-3")).collect()
}

fn each(cluster: &mut Cluster, part: &mut Part, kinds: &[Link], hold: Duration) {
    // No cache has an hour that was never requested: the read goes to PostgreSQL.
    let mut unread = cluster.run.shape.base_hour - 30;
    for name in links(cluster) {
        let before = cluster.system.effects(&name);
        for &kind in kinds {
            cluster.system.set_link(&name, kind);
            unread -= 1;
            let (reader, target) = (cluster.system.queries()[0], target(unread));
            let reading = thread::spawn(move || http_get(reader, &target));
            cluster.pass(hold);
            cluster.system.set_link(&name, Link::Whole);
            let _ = reading.join();
        }
        part.sometimes(&format!("{name} took effect"), cluster.system.effects(&name) - before);
        cluster.continues(part, &name, seconds(25));
    }
}

fn partitions(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    let kinds = [Link::Cut, Link::CutUp, Link::CutDown, Link::Flapping(seconds(1))];
    each(cluster, part, &kinds, Duration::from_millis(2_500));
    let untyped: Vec<String> = cluster
        .run
        .oracle
        .answers()
        .into_keys()
        .filter(|word| word.contains("500") || word.contains("no code"))
        .collect();
    part.must(untyped.is_empty(), format!("every refusal has a code {untyped:?}"));
    Ok(())
}

fn degraded(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    let answers = |cluster: &Cluster| cluster.run.oracle.answers().values().sum::<u64>();
    let (sent, events) = (answers(cluster), cluster.run.oracle.send_counts().len());
    cluster.send(1_000);
    let slow = [200, 2_000].map(|ms| Link::Slow(Duration::from_millis(ms)));
    let kinds = [slow[0], slow[1], Link::Sliced, Link::Reset, Link::HalfClosed];
    each(cluster, part, &kinds, seconds(2));
    cluster.finish_load();
    let (sent, events) = (answers(cluster) - sent, (cluster.run.oracle.send_counts().len() - events) as u64);
    part.must(sent <= 2 * events, format!("{sent} sends for {events} events"));
    Ok(())
}

/// The first records expire, and those of the last seconds are sent again although the brokers have them.
pub(crate) fn lost_replies(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    for round in 0..3 {
        cluster.send(300);
        cluster.pass(seconds(2));
        // So few that each is in a request of its own, with at most five in flight: some expire while others have time left.
        cluster.send(1);
        cluster.system.set_link("kafka-command-1", Link::CutDown);
        cluster.pass(seconds(17));
        cluster.system.set_link("kafka-command-1", Link::Whole);
        cluster.send(300);
        cluster.continues(part, &format!("cut {}", round + 1), seconds(25));
    }
    cluster.finish_load();
    cluster.meter.scrape();
    part.sometimes("a record was written twice", cluster.meter.total("millrace_stage_repeats_total", ""));
    Ok(())
}
