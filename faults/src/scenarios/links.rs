//! Rows 28 and 29: every link of every role, broken and bad.

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
        what: "each link between a role and Kafka, Redis or PostgreSQL partitioned: both ways, either way, flapping: \
               typed errors, and it heals alone.",
        fail_points: false,
        own: None,
        play: partitions,
    },
    Scenario {
        row: "29",
        what: "each link slow (0.2 and 2 s), in slices of one byte, reset, half closed: time-outs fire, and not more than \
               two sends for one event.",
        fail_points: false,
        own: None,
        play: bad,
    },
];

/// One link of each kind.
fn links(cluster: &Cluster) -> Vec<String> {
    cluster.system.links().into_iter().filter(|name| !name.ends_with("-2") && !name.ends_with("-3")).collect()
}

fn each(cluster: &mut Cluster, part: &mut Part, kinds: &[Link], hold: Duration) {
    // An hour that was not asked for before is read from PostgreSQL, whatever is cached.
    let mut unread = cluster.run.shape.base_hour - 30;
    for name in links(cluster) {
        let before = cluster.system.disturbed(&name);
        for &kind in kinds {
            cluster.system.set_link(&name, kind);
            unread -= 1;
            let (reader, target) = (cluster.system.queries()[0], target(unread));
            let reading = thread::spawn(move || http_get(reader, &target));
            cluster.pass(hold);
            cluster.system.set_link(&name, Link::Whole);
            let _ = reading.join();
        }
        part.sometimes(&format!("{name} felt"), cluster.system.disturbed(&name) - before);
        cluster.continues(part, &name, seconds(25));
    }
}

fn partitions(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    let kinds = [Link::Cut, Link::CutUp, Link::CutDown, Link::Flapping(seconds(1))];
    each(cluster, part, &kinds, Duration::from_millis(2_500));
    let odd: Vec<String> = cluster
        .run
        .oracle
        .answers()
        .into_keys()
        .filter(|word| word.contains("500") || word.contains("no code"))
        .collect();
    part.must(odd.is_empty(), format!("every refusal is typed {odd:?}"));
    Ok(())
}

fn bad(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
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
