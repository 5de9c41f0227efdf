//! Row `push`: publishers of one topic, and an endpoint for each way an endpoint can fail, while every process that handles
//! messages is killed. Its oracle is what publishers were answered, and what the endpoints received and answered.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millrace_testkit::scratch_dir;
use serde_json::Value;

use super::scenario::Scenario;
use super::topics::{handlers, request, start_coordinators};
use crate::cluster::{Cluster, seconds};
use crate::fault::Fault;
use crate::lock;
use crate::messages::{Clients, Publishing, TOPIC};
use crate::push::{ENDPOINTS, MAX_IN_FLIGHT, QUARTER, Receiver, SLOW_ENDPOINTS, headers, subscription};
use crate::random::USERS;
use crate::report::Part;
use crate::system::{Engine, Setup};

const PUBLISHERS: usize = 3;
/// Between two messages of a publisher: some 25 a second in all, of which each endpoint receives most.
const PAUSE: Duration = Duration::from_millis(100);
const WITHIN: Duration = Duration::from_mins(1);
/// A breaker may be open for most of it.
const DRAINED_WITHIN: Duration = Duration::from_mins(2);
/// Without the bulkhead slow endpoints have far more than a quarter in flight after this time.
const GROWTH: Duration = Duration::from_secs(8);
/// Between an endpoint's answer and its settlement.
const ANSWERED: &str = "delivery::push::answered";

const ROW: Scenario = Scenario {
    row: "push",
    what: "an endpoint for each way to fail, kill -9 of each process, the broker restarted: each endpoint gets each acknowledged message, or it is a dead letter.",
    fail_points: true,
    own: None,
    play: push,
};

pub(super) const ROWS: &[Scenario] = &[Scenario { own: Some(kafka), ..ROW }];
pub(super) const EMBEDDED: Scenario = Scenario { own: Some(embedded), ..ROW };

fn kafka() -> (Setup, u64, u64) {
    (setup(Engine::Kafka), USERS, 0)
}

fn embedded() -> (Setup, u64, u64) {
    (setup(Engine::Embedded), USERS, 0)
}

/// A system that pushes to this machine.
pub(crate) fn setup(engine: Engine) -> Setup {
    let keys = scratch_dir("push-keys").join("push.keys");
    // If it cannot be written, Kafka refuses subscriptions that push, and the row ends with that refusal.
    let _ = fs::write(&keys, format!("k1 {}\n", STANDARD.encode([7; 32])));
    Setup::new(engine)
        .set("delivery.allow_targets", &"[\"127.0.0.0/8\"]")
        .set("delivery.max_in_flight", &MAX_IN_FLIGHT)
        .set("delivery.secrets_file", &keys.display())
}

/// The processes that push.
fn pushers(engine: Engine) -> &'static [&'static str] {
    match engine {
        Engine::Embedded => &["up-1"],
        Engine::Kafka => &["delivery-1", "delivery-2"],
    }
}

fn push(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    let mut traffic = Traffic::start(cluster)?;
    cluster.send(50);
    traffic.saturate(cluster, part);
    let engine = cluster.system.engine;
    let rounds = if engine == Engine::Kafka { 1 } else { 3 };
    for name in handlers(engine).repeat(rounds) {
        // Coordinators for longer than the session timeout, so that another process takes over.
        let down = if name.starts_with("delivery") { 8 } else { 1 };
        traffic.kill(cluster, part, name, seconds(down));
    }
    if engine == Engine::Kafka {
        traffic.interrupt();
        Fault::BrokerKill(0).inject(&mut cluster.system)?;
        cluster.pass(seconds(2));
        Fault::BrokerKill(0).repair(&mut cluster.system)?;
        traffic.interrupt();
        traffic.continues(cluster, part, "broker kill -9");
    }
    traffic.crash(cluster, part)?;
    traffic.finish(cluster, part)
}

/// For the controls: the same endpoints and comparison, each process that pushes killed once.
pub(crate) fn pushes_and_kills(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    let mut traffic = Traffic::start(cluster)?;
    traffic.saturate(cluster, part);
    for name in pushers(cluster.system.engine) {
        // What a restart may not forget.
        cluster.wait_for(seconds(15), |_| traffic.shown("failing", "in_retry") > Some(0));
        traffic.kill(cluster, part, name, seconds(1));
    }
    traffic.finish(cluster, part)
}

/// The running publishers and endpoints. Dropping it stops them.
struct Traffic {
    clients: Arc<Clients>,
    receiver: Receiver,
    publishers: Vec<JoinHandle<()>>,
    /// Messages up to the position of the subscription whose endpoint is gone, and requests it received until it was suspended.
    gone: (Option<u64>, u64),
}

impl Traffic {
    /// Creates the topic and a subscription for each endpoint, and starts the publishers.
    fn start(cluster: &mut Cluster) -> Result<Self, String> {
        start_coordinators(cluster)?;
        // A coordinator that joins later takes partitions from the first.
        cluster.wait_for(WITHIN, |cluster| cluster.system.wait_ready().is_ok());
        let publishing = Publishing { pause: PAUSE, headers };
        let clients = Arc::new(Clients::publishing(cluster.run.commands.clone(), publishing));
        let receiver = Receiver::start()?;
        request(cluster, &clients, ("PUT", TOPIC), "")?;
        for endpoint in ENDPOINTS {
            let (path, body) = (subscription(endpoint.name), endpoint.body(receiver.plain, receiver.tls));
            let mut shown = request(cluster, &clients, ("PUT", &path), &body)?;
            // Who creates it twice is not shown the secret.
            if shown["secret"].is_null() {
                let rotate = format!("{path}:rotate-secret");
                shown = request(cluster, &clients, ("POST", &rotate), r#"{"overlap":"0s"}"#)?;
            }
            receiver.deliveries().learn(endpoint, shown["secret"].as_str().unwrap_or_default())?;
        }
        let publish = |index: usize| {
            let clients = Arc::clone(&clients);
            thread::spawn(move || clients.publish(index))
        };
        let publishers = (0..PUBLISHERS).map(publish).collect();
        let mut traffic = Self { clients, receiver, publishers, gone: (None, 0) };
        let mut shown = Value::Null;
        let suspended = cluster.wait_for(WITHIN, |_| {
            shown = traffic.described("gone");
            shown["reason"] == "endpoint-gone"
        });
        if suspended.is_none() {
            return Err(format!("410 suspends nothing: {shown}"));
        }
        traffic.gone = traffic.position_of_gone(&shown);
        Ok(traffic)
    }

    /// A subscription as it is shown; null while no coordinator answers.
    fn described(&self, name: &str) -> Value {
        self.clients.get(&subscription(name)).unwrap_or_default()
    }

    /// A number of a subscription.
    fn shown(&self, name: &str, member: &str) -> Option<u64> {
        self.described(name)[member].as_u64()
    }

    fn position_of_gone(&self, shown: &Value) -> (Option<u64>, u64) {
        (shown["position"]["ordinal"].as_u64(), self.receiver.deliveries().requests("gone"))
    }

    /// Waits until the slow endpoints have their quarter of the requests, and gives them the time to take more.
    fn saturate(&self, cluster: &mut Cluster, part: &mut Part) {
        let full = cluster.wait_for(WITHIN, |_| self.receiver.most().0 >= QUARTER as u64);
        part.must(full.is_some(), format!("slow endpoints take the {QUARTER} requests that they may have in flight"));
        cluster.pass(GROWTH);
        self.continues(cluster, part, "beside slow endpoints");
        self.redirects_are_failures(cluster, part);
    }

    /// Waits until a redirect is among the last attempts at the endpoint that redirects, and requires that it is a failure.
    fn redirects_are_failures(&self, cluster: &mut Cluster, part: &mut Part) {
        let target = format!("{}/attempts", subscription("redirects"));
        let mut redirect = None;
        cluster.wait_for(WITHIN, |_| {
            let shown = self.clients.get(&target).unwrap_or_default();
            let mut attempts = shown["attempts"].as_array().into_iter().flatten();
            redirect = attempts.find(|attempt| attempt["status"] == 302).cloned();
            redirect.is_some()
        });
        let failed = redirect.as_ref().is_some_and(|attempt| attempt["error"] == "redirect");
        part.must(failed, format!("a redirect is a failure: {}", redirect.unwrap_or_default()));
    }

    /// What is in flight may be sent again.
    fn interrupt(&self) {
        self.receiver.deliveries().interrupted();
    }

    /// Kills a process under traffic and starts it again after `down`.
    fn kill(&self, cluster: &mut Cluster, part: &mut Part, name: &str, down: Duration) {
        cluster.pass(seconds(2));
        self.interrupt();
        cluster.system.node(name).kill();
        cluster.pass(down);
        // Whoever joins a group may get partitions of others.
        self.interrupt();
        cluster.system.node(name).start();
        self.continues(cluster, part, &format!("kill -9 {name}"));
    }

    /// Lets the process that pushes die between an endpoint's answer and its settlement.
    fn crash(&self, cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
        let crash = |name: &&str| Fault::Crash((*name).to_owned(), ANSWERED, cluster.run.shape.seed);
        let faults: Vec<Fault> = pushers(cluster.system.engine).iter().map(crash).collect();
        let effects =
            |cluster: &mut Cluster| faults.iter().filter_map(|fault| fault.effects(&mut cluster.system)).sum::<u64>();
        let before = effects(cluster);
        for fault in &faults {
            self.interrupt();
            fault.inject(&mut cluster.system)?;
        }
        cluster.wait_for(WITHIN, |cluster| effects(cluster) > before);
        let crashes = effects(cluster) - before;
        part.sometimes("crashes between an answer and its settlement", crashes);
        for fault in &faults {
            // Of the crash, and of the kill that ends the fault.
            self.interrupt();
            self.interrupt();
            fault.repair(&mut cluster.system)?;
        }
        self.continues(cluster, part, "a crash between an answer and its settlement");
        Ok(())
    }

    /// Requires that messages reach an endpoint that never fails.
    fn continues(&self, cluster: &mut Cluster, part: &mut Part, what: &str) {
        let received = || self.receiver.deliveries().requests("always");
        let before = received();
        let took = cluster.wait_for(WITHIN, |_| received() > before + 20);
        let text = took.map_or_else(|| "never".to_owned(), |took| format!("after {:.1} s", took.as_secs_f64()));
        part.must(
            took.is_some(),
            format!("{what}: messages reach the endpoint that never fails {text} (at most 60 s)"),
        );
    }

    /// Ends the traffic, waits until everything is settled, kills every process once more, and compares.
    fn finish(&mut self, cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
        let clients = Arc::clone(&self.clients);
        clients.ending.store(true, Ordering::Relaxed);
        let known = cluster.wait_for(WITHIN, |_| self.publishers.iter().all(JoinHandle::is_finished));
        part.must(known.is_some(), "every publisher comes to its end");
        let processes = pushers(cluster.system.engine).len();
        let (slow, in_flight) = self.receiver.most();
        // Each slow endpoint is met once by each process before it is known to be slow.
        let (most_slow, most) = (processes * (QUARTER + SLOW_ENDPOINTS), processes * MAX_IN_FLIGHT);
        part.must(
            slow <= most_slow as u64,
            format!("slow endpoints had up to {slow} requests in flight (at most {most_slow})"),
        );
        part.must(
            in_flight <= most as u64,
            format!("all endpoints had up to {in_flight} requests in flight (at most {most})"),
        );
        self.receiver.end();
        self.come_back(cluster, part);
        self.drain(cluster, part, "everything is settled");
        self.stop();
        let before = self.receiver.deliveries().all_requests();
        for name in handlers(cluster.system.engine) {
            cluster.system.node(name).kill();
            cluster.system.node(name).start();
        }
        self.drain(cluster, part, "after one more kill -9 everything is settled");
        cluster.pass(seconds(2));
        let after = self.receiver.deliveries().all_requests();
        part.must(after == before, format!("{} requests for what was settled", after - before));
        let mut letters = BTreeMap::new();
        for endpoint in ENDPOINTS {
            letters.insert(endpoint.name, self.letters(cluster, endpoint.name)?);
        }
        let mut answers = lock(&clients.answers);
        let found = self.receiver.deliveries().compare(answers.published(), &letters, part);
        answers.report(found, part);
        Ok(())
    }

    /// Requires that nothing happened to the subscription whose endpoint is gone, and resumes it.
    fn come_back(&self, cluster: &mut Cluster, part: &mut Part) {
        let mut shown = Value::Null;
        cluster.wait_for(WITHIN, |_| {
            shown = self.described("gone");
            !shown.is_null()
        });
        let now = self.position_of_gone(&shown);
        let kept = now.0.is_some() && now == self.gone && shown["state"] == "suspended";
        part.must(kept, format!("a suspended subscription is kept as it was: {:?}, now {now:?}", self.gone));
        self.receiver.come_back();
        let target = format!("{}:resume", subscription("gone"));
        if let Err(why) = request(cluster, &self.clients, ("POST", &target), "") {
            part.differences.push(why);
        }
    }

    /// Waits until no subscription has a backlog.
    fn drain(&self, cluster: &mut Cluster, part: &mut Part, what: &str) {
        let left = || ENDPOINTS.iter().find(|endpoint| self.shown(endpoint.name, "backlog") != Some(0));
        let drained = cluster.wait_for(DRAINED_WITHIN, |_| left().is_none());
        let text = left().map_or_else(String::new, |endpoint| format!(", but {}", self.described(endpoint.name)));
        part.must(drained.is_some(), format!("{what}{text}"));
    }

    /// The dead letters of a subscription.
    fn letters(&self, cluster: &mut Cluster, name: &str) -> Result<Vec<Value>, String> {
        let (mut letters, mut after) = (Vec::new(), String::new());
        loop {
            let target = format!("{}/dead-letters?limit=1000{after}", subscription(name));
            let mut page = None;
            cluster.wait_for(WITHIN, |_| {
                page = self.clients.get(&target);
                page.is_some()
            });
            let page = page.ok_or_else(|| format!("GET {target}: no answer"))?;
            letters.extend(page["dead_letters"].as_array().into_iter().flatten().cloned());
            let Some(next) = page["next"].as_u64() else { return Ok(letters) };
            after = format!("&after={next}");
        }
    }

    fn stop(&mut self) {
        self.clients.ending.store(true, Ordering::Relaxed);
        self.clients.ended.store(true, Ordering::Relaxed);
        for thread in self.publishers.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop();
    }
}
