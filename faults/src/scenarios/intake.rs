//! Row `tcp`: clients of TCP intake while every process that handles their messages is killed. Its oracle is what they were
//! answered, and what the journal's files hold.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use millrace_testkit::Link;

use super::scenario::Scenario;
use super::services::crash;
use crate::cluster::{Cluster, seconds};
use crate::event::mix;
use crate::fault::{Fault, JOURNAL_POINTS};
use crate::intake::{Clients, Habits, Journal, Sender, Tally, compare, read};
use crate::random::USERS;
use crate::report::Part;
use crate::system::{Engine, Setup};

const WITHIN: Duration = Duration::from_mins(1);
/// Longer than `kafka.message_timeout`, and shorter than a faithful client waits.
const EXPIRED: Duration = Duration::from_secs(17);

pub(super) const ROWS: &[Scenario] = &[Scenario { own: Some(on_kafka), ..TCP }];

/// For either engine.
pub(super) const TCP: Scenario = Scenario {
    row: "tcp",
    what: "clients of TCP intake, kill -9 of each process at random and at fail points, intake cut from the brokers, the broker restarted: every acknowledged message is in each journal once, byte for byte, in order.",
    fail_points: true,
    own: Some(on_embedded),
    play: tcp,
};

fn on_kafka() -> (Setup, u64, u64) {
    (Setup::with_intake(Engine::Kafka), USERS, 0)
}

fn on_embedded() -> (Setup, u64, u64) {
    (Setup::with_intake(Engine::Embedded), USERS, 0)
}

/// The processes to kill, in turn.
fn victims(engine: Engine) -> &'static [&'static str] {
    match engine {
        Engine::Embedded => &["up-1"; 6],
        Engine::Kafka => &[
            "command-1",
            "processor-1",
            "materializer-1",
            "command-2",
            "processor-2",
            "materializer-2",
            "command-1",
            "materializer-1",
        ],
    }
}

/// Where processes kill themselves, besides the journal's points.
fn points(engine: Engine) -> &'static [(&'static str, &'static str)] {
    match engine {
        Engine::Embedded => &[
            ("up-1", "embedded::append::enqueued"),
            ("up-1", "embedded::append::synced"),
            ("up-1", "embedded::stage::applied"),
            ("up-1", "embedded::stage::written"),
            ("up-1", "embedded::sink::written"),
        ],
        Engine::Kafka => &[
            ("command-1", "kafka::append::enqueued"),
            ("command-2", "kafka::append::reported"),
            ("processor-1", "kafka::stage::applied"),
            ("processor-2", "kafka::stage::produced"),
            ("processor-1", "kafka::stage::offsets_sent"),
            ("processor-2", "kafka::stage::committing"),
            ("processor-1", "kafka::stage::committing:delayed"),
            ("processor-2", "kafka::stage::committed"),
            ("materializer-1", "kafka::sink::written"),
        ],
    }
}

/// The process that writes a journal.
fn writer(engine: Engine) -> &'static str {
    if engine == Engine::Embedded { "up-1" } else { "materializer-1" }
}

/// One at a time, in small and large windows, with and without an epoch; three forget, and one stays with one server however
/// long that takes.
fn crowd() -> Vec<Habits> {
    let client = |index: u64| {
        let window = [1, 20, 200][usize::try_from(index % 3).unwrap_or_default()];
        let epoch = index.is_multiple_of(2).then_some(index);
        Habits {
            id: format!("client-{index}"),
            epoch,
            window,
            burst: (window / 4).max(1),
            pause: Duration::from_millis(5),
            patience: seconds(5),
            faithful: false,
            // One of those sends everything twice: it must be in few ranges.
            large: epoch.is_none() || window < 200,
            forgetful: index >= 9,
            count: None,
        }
    };
    (0..12).map(client).chain([faithful()]).collect()
}

/// Frames spread over as long as they take to expire, so that some of them do.
fn faithful() -> Habits {
    Habits {
        id: "faithful".to_owned(),
        epoch: None,
        window: 200,
        burst: 1,
        pause: Duration::from_millis(100),
        patience: seconds(40),
        faithful: true,
        large: false,
        forgetful: false,
        count: None,
    }
}

fn tcp(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    let engine = cluster.system.engine;
    let mut traffic = Traffic::start(cluster, crowd());
    cluster.send(300);
    let seed = cluster.run.shape.seed;
    for (round, name) in (0_u64..).zip(victims(engine)) {
        cluster.pass(Duration::from_millis(500 + mix(seed ^ round) % 1_500));
        cluster.system.node(name).kill();
        cluster.pass(Duration::from_millis(mix(seed ^ round ^ 0x77) % 1_500));
        // The embedded engine has one journal: its format changes with every other start.
        let framed = [("MILLRACE_JOURNAL__FORMAT", "framed")];
        let variables = if engine == Engine::Embedded && round.is_multiple_of(2) { &framed[..] } else { &[] };
        cluster.system.node(name).start_with(variables);
        traffic.continues(cluster, part, &format!("kill -9 {name}"));
    }
    let journal = JOURNAL_POINTS.into_iter().map(|point| (writer(engine), point));
    for (round, (name, point)) in (0_u64..).zip(points(engine).iter().copied().chain(journal)) {
        crash(cluster, part, name, point, round)?;
        traffic.continues(cluster, part, point);
    }
    if engine == Engine::Kafka {
        for time in [seconds(8), EXPIRED] {
            cut(cluster, time);
            traffic.continues(cluster, part, &format!("command-1 cut off for {} s", time.as_secs()));
        }
        Fault::BrokerKill(0).inject(&mut cluster.system)?;
        cluster.pass(seconds(2));
        Fault::BrokerKill(0).repair(&mut cluster.system)?;
        traffic.continues(cluster, part, "broker kill -9");
    }
    let found = traffic.finish(cluster, part);
    part.sometimes("messages acknowledged", found.tally.acknowledged);
    part.sometimes("messages refused", found.tally.refused);
    part.sometimes("messages of unknown outcome", found.tally.unknown);
    part.sometimes("frames sent again", found.tally.resent);
    part.sometimes("segments of text", found.segments[0]);
    part.sometimes("framed segments", found.segments[1]);
    Ok(())
}

/// Cuts one command service off from the brokers; others go on.
fn cut(cluster: &mut Cluster, time: Duration) {
    cluster.system.set_link("kafka-command-1", Link::Cut);
    cluster.pass(time);
    cluster.system.set_link("kafka-command-1", Link::Whole);
}

/// For a control: acknowledged messages die with the process that took them.
pub(crate) fn messages_and_kills_of_up(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    let unpaced = |habits: Habits| Habits { pause: Duration::ZERO, ..habits };
    let mut traffic = Traffic::start(cluster, crowd().into_iter().map(unpaced).collect());
    for round in 0..6 {
        cluster.pass(Duration::from_millis(500 + 77 * round));
        cluster.system.node("up-1").kill();
        cluster.system.node("up-1").start();
        cluster.system.wait_ready()?;
    }
    traffic.finish(cluster, part);
    Ok(())
}

/// The same on Kafka, where they die while they wait for the brokers.
pub(crate) fn messages_behind_a_cut_link(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    let mut traffic = Traffic::start(cluster, crowd());
    cluster.pass(seconds(2));
    cluster.system.set_link("kafka-command-1", Link::Cut);
    cluster.pass(seconds(1));
    cluster.system.node("command-1").kill();
    traffic.finish(cluster, part);
    Ok(())
}

/// For controls: more messages than the last arrivals are remembered of, then all of them again.
pub(crate) fn messages_sent_twice(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    let client = Habits { epoch: Some(1), burst: 50, pause: Duration::ZERO, count: Some(6_000), ..faithful() };
    Traffic::start(cluster, vec![client]).finish(cluster, part);
    Ok(())
}

/// For a control: frames in the log behind one that is not. On the embedded engine the log refuses the longest; clients
/// that forget do not send again what stood behind it. On Kafka the oldest expire, and come after those behind them.
pub(crate) fn messages_behind_a_missing_one(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    let habits = match cluster.system.engine {
        Engine::Embedded => crowd(),
        Engine::Kafka => vec![faithful()],
    };
    let mut traffic = Traffic::start(cluster, habits);
    cluster.pass(seconds(4));
    if cluster.system.engine == Engine::Kafka {
        cut(cluster, EXPIRED);
        cluster.pass(seconds(4));
    }
    traffic.finish(cluster, part);
    Ok(())
}

/// For a control: the journal's files are cut when its writer starts again.
pub(crate) fn messages_and_a_kill_of_the_writer(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    let mut traffic = Traffic::start(cluster, crowd());
    let name = writer(cluster.system.engine);
    cluster.pass(seconds(3));
    cluster.system.node(name).kill();
    cluster.system.node(name).start();
    cluster.pass(seconds(3));
    traffic.finish(cluster, part);
    Ok(())
}

/// What the clients sent, and what the journals hold.
#[derive(Debug, Default)]
struct Findings {
    tally: Tally,
    segments: [u64; 2],
}

/// The running clients. Dropping it stops them.
#[derive(Debug)]
struct Traffic {
    clients: Arc<Clients>,
    threads: Vec<JoinHandle<Sender>>,
}

impl Traffic {
    fn start(cluster: &Cluster, habits: Vec<Habits>) -> Self {
        let clients = Arc::new(Clients::new(cluster.run.shape.seed, cluster.system.intakes()));
        let mut traffic = Self { clients, threads: Vec::new() };
        for habits in habits {
            traffic.spawn(Sender::new(habits));
        }
        traffic
    }

    fn spawn(&mut self, mut sender: Sender) {
        let clients = Arc::clone(&self.clients);
        self.threads.push(thread::spawn(move || {
            clients.drive(&mut sender);
            sender
        }));
    }

    /// Requires that messages are acknowledged again.
    fn continues(&self, cluster: &mut Cluster, part: &mut Part, what: &str) {
        let before = self.clients.acknowledged();
        let took = cluster.wait_for(WITHIN, |_| self.clients.acknowledged() > before + 200);
        let text = took.map_or_else(|| "never".to_owned(), |took| format!("after {:.1} s", took.as_secs_f64()));
        part.must(took.is_some(), format!("{what}: messages over TCP are acknowledged again {text} (at most 60 s)"));
    }

    /// Waits until every client has all its answers.
    fn join(&mut self, cluster: &mut Cluster, part: &mut Part) -> Vec<Sender> {
        let done = cluster.wait_for(WITHIN, |_| self.threads.iter().all(JoinHandle::is_finished));
        part.must(done.is_some(), "every client over TCP has all its answers");
        if done.is_none() {
            self.clients.ended.store(true, Ordering::Relaxed);
        }
        self.threads.drain(..).filter_map(|thread| thread.join().ok()).collect()
    }

    /// Ends the traffic, sends all messages of one client again, and compares the answers with every journal.
    fn finish(&mut self, cluster: &mut Cluster, part: &mut Part) -> Findings {
        if let Err(why) = cluster.system.repair_all().and_then(|()| cluster.system.wait_ready()) {
            part.differences.push(why);
        }
        self.clients.ending.store(true, Ordering::Relaxed);
        let mut senders = self.join(cluster, part);
        // With an epoch, the server remembers them all.
        if let Some(at) = senders.iter().position(|sender| sender.habits.epoch.is_some() && sender.habits.window > 100)
        {
            let mut again = senders.swap_remove(at);
            again.repeat();
            self.spawn(again);
            senders.extend(self.join(cluster, part));
        }
        let mut findings = Findings::default();
        for (writer, directory) in cluster.system.journals() {
            let mut seen: Result<Journal, String> = Err("not read".to_owned());
            let whole = cluster.wait_for(cluster.settle, |_| {
                seen = read(&directory);
                self.differences(&seen, &senders).is_empty()
            });
            let difference = |what: String| format!("journal of {writer}: {what}");
            part.must(whole.is_some(), difference("it has every acknowledged message once, in order".to_owned()));
            part.differences.extend(self.differences(&seen, &senders).into_iter().map(difference));
            let directory = directory.display().to_string();
            match cluster.system.tool(&["journal", "verify", "--directory", &directory]) {
                Ok(verified) => part.fact(format!("{writer}: {}", verified.lines().next().unwrap_or_default())),
                Err(why) => part.differences.push(difference(why)),
            }
            for (sum, segments) in findings.segments.iter_mut().zip(seen.map_or([0; 2], |journal| journal.segments)) {
                *sum += segments;
            }
        }
        for sender in &senders {
            part.differences.extend(sender.differences.iter().take(3).cloned());
            findings.tally += sender.tally();
        }
        findings
    }

    fn differences(&self, journal: &Result<Journal, String>, senders: &[Sender]) -> Vec<String> {
        match journal {
            Ok(journal) => compare(&journal.lines, self.clients.seed(), senders),
            Err(why) => vec![why.clone()],
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.clients.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
