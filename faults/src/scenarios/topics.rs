//! Row `topics`: publishers and two consumers of one topic while every process that handles its messages is killed. Its
//! oracle is what they were answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::scenario::Scenario;
use crate::client::Attempt;
use crate::cluster::{Cluster, seconds};
use crate::fault::Fault;
use crate::lock;
use crate::messages::{Caller, Clients, JSON, SUBSCRIPTION, TOPIC};
use crate::oracle::Verdict;
use crate::random::USERS;
use crate::report::Part;
use crate::system::{Engine, Setup};

const PUBLISHERS: usize = 4;
const CONSUMERS: usize = 2;
const WITHIN: Duration = Duration::from_mins(1);

pub(super) const ROWS: &[Scenario] = &[Scenario { own: Some(plain), ..TOPICS }];

/// For either engine.
pub(super) const TOPICS: Scenario = Scenario {
    row: "topics",
    what: "publishers and two consumers of a topic, kill -9 of each process in turn, the broker restarted: every acknowledged message is handed out, none after its acknowledgement was answered.",
    fail_points: false,
    own: None,
    play: topics,
};

fn plain() -> (Setup, u64, u64) {
    (Setup::new(Engine::Kafka), USERS, 0)
}

/// The processes that handle messages.
pub(super) fn handlers(engine: Engine) -> &'static [&'static str] {
    match engine {
        Engine::Embedded => &["up-1"],
        Engine::Kafka => &["delivery-1", "command-1", "delivery-2", "command-2"],
    }
}

fn topics(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    let mut traffic = Traffic::start(cluster)?;
    cluster.send(100);
    let (engine, names) = (cluster.system.engine, handlers(cluster.system.engine));
    let rounds = if engine == Engine::Kafka { 2 * names.len() } else { 6 };
    for round in 0..rounds {
        // In the second turn for longer than the session timeout, so that another process takes over.
        let down = if engine == Engine::Kafka && round >= names.len() { 8 } else { 1 };
        traffic.kill(cluster, part, names[round % names.len()], seconds(down));
    }
    if engine == Engine::Kafka {
        Fault::BrokerKill(0).inject(&mut cluster.system)?;
        cluster.pass(seconds(2));
        Fault::BrokerKill(0).repair(&mut cluster.system)?;
        traffic.continues(cluster, part, "broker kill -9");
    }
    let unknown = lock(&traffic.clients.answers).unknown;
    part.sometimes("publishes of unknown outcome", unknown);
    traffic.finish(cluster, part);
    Ok(())
}

/// For a control: the same clients and comparison, one kill.
pub(crate) fn messages_and_one_kill(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    let mut traffic = Traffic::start(cluster)?;
    traffic.kill(cluster, part, handlers(cluster.system.engine)[0], seconds(1));
    traffic.finish(cluster, part);
    Ok(())
}

/// Starts the coordinators, which rows about counts do without. Of the embedded engine they are in the one process.
pub(super) fn start_coordinators(cluster: &mut Cluster) -> Result<(), String> {
    if cluster.system.engine == Engine::Embedded {
        return Ok(());
    }
    let environment = cluster.system.node("command-1").environment().to_vec();
    let setup = Setup { environment, ..Setup::new(Engine::Kafka) };
    for number in [1, 2] {
        cluster.system.add_instance(&setup, "delivery", number)?;
    }
    cluster.meter.set_nodes(cluster.system.admins());
    Ok(())
}

/// Sends a request until it is acknowledged, and returns what was answered.
pub(super) fn request(
    cluster: &mut Cluster,
    clients: &Clients,
    (method, target): (&str, &str),
    body: &str,
) -> Result<Value, String> {
    let (mut caller, mut last) = (Caller::new(clients, 0), Attempt::NotSent);
    let acknowledged = cluster.wait_for(WITHIN, |_| {
        let (verdict, sent) = caller.call(method, target, &[JSON], body);
        last = sent;
        verdict == Verdict::Acknowledged
    });
    match (acknowledged, last) {
        (Some(_), Attempt::Response { body, .. }) => Ok(serde_json::from_str(&body).unwrap_or_default()),
        (_, last) => Err(format!("{method} {target}: {last:?}")),
    }
}

/// The running clients. Dropping it stops them.
#[derive(Debug)]
struct Traffic {
    clients: Arc<Clients>,
    publishers: Vec<JoinHandle<()>>,
    consumers: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Creates the topic and its subscription, and starts publishers and consumers.
    fn start(cluster: &mut Cluster) -> Result<Self, String> {
        start_coordinators(cluster)?;
        let clients = Arc::new(Clients::new(cluster.run.commands.clone()));
        request(cluster, &clients, ("PUT", TOPIC), "")?;
        request(cluster, &clients, ("PUT", SUBSCRIPTION), r#"{"mode":"pull"}"#)?;
        let spawn = |run: fn(&Clients, usize), index: usize| {
            let clients = Arc::clone(&clients);
            thread::spawn(move || run(&clients, index))
        };
        let publishers = (0..PUBLISHERS).map(|index| spawn(Clients::publish, index)).collect();
        let consumers = (0..CONSUMERS).map(|index| spawn(Clients::consume, index)).collect();
        Ok(Self { clients, publishers, consumers })
    }

    /// Kills a process under traffic and starts it again after `down`.
    fn kill(&self, cluster: &mut Cluster, part: &mut Part, name: &str, down: Duration) {
        cluster.pass(seconds(2));
        cluster.system.node(name).kill();
        cluster.pass(down);
        cluster.system.node(name).start();
        self.continues(cluster, part, &format!("kill -9 {name}"));
    }

    /// Requires that messages are acknowledged again.
    fn continues(&self, cluster: &mut Cluster, part: &mut Part, what: &str) {
        let before = self.clients.settled();
        let took = cluster.wait_for(WITHIN, |_| self.clients.settled() > before + 20);
        let text = took.map_or_else(|| "never".to_owned(), |took| format!("after {:.1} s", took.as_secs_f64()));
        part.must(took.is_some(), format!("{what}: messages are acknowledged again {text} (at most 60 s)"));
    }

    /// Ends the traffic, acknowledges everything, kills every process once more, and compares.
    fn finish(&mut self, cluster: &mut Cluster, part: &mut Part) {
        let clients = Arc::clone(&self.clients);
        clients.ending.store(true, Ordering::Relaxed);
        let known = cluster.wait_for(WITHIN, |_| self.publishers.iter().all(JoinHandle::is_finished));
        part.must(known.is_some(), "every publisher comes to its end");
        let drained = cluster.wait_for(WITHIN, |_| clients.backlog() == Some(0));
        part.must(drained.is_some(), format!("everything is acknowledged: backlog {:?}", clients.backlog()));
        self.stop();
        is_empty(&clients, cluster, part, "everything acknowledged");
        for name in handlers(cluster.system.engine) {
            cluster.system.node(name).kill();
            cluster.system.node(name).start();
        }
        is_empty(&clients, cluster, part, "after one more kill -9");
        lock(&clients.answers).compare(part);
    }

    fn stop(&mut self) {
        self.clients.ending.store(true, Ordering::Relaxed);
        self.clients.ended.store(true, Ordering::Relaxed);
        for thread in self.publishers.drain(..).chain(self.consumers.drain(..)) {
            let _ = thread.join();
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Requires that a pull through each command service returns 204.
fn is_empty(clients: &Clients, cluster: &mut Cluster, part: &mut Part, when: &str) {
    for index in 0..clients.commands.len() {
        let (mut caller, mut last) = (Caller::new(clients, index), Attempt::NotSent);
        cluster.wait_for(WITHIN, |_| {
            let (verdict, sent, _) = caller.pull("");
            last = sent;
            verdict == Verdict::Acknowledged
        });
        let none = matches!(last, Attempt::Response { status: 204, .. });
        part.must(
            none,
            format!("{when}: a pull returns {}", if none { "204".to_owned() } else { format!("{last:?}") }),
        );
    }
}
