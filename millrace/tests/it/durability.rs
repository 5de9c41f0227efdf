//! The losses of the weaker levels, provoked: the response was 202, the event is lost, and the metrics report it. The strongest
//! level never acknowledges an event that is lost.

use std::net::SocketAddr;

use millrace_testkit::{Brokers, Kafka, Response, Service, free_port, http, not_run, unique, wait_until};

use crate::run::{Up, WITHIN, ends, metric, tool};

const ITEM: &str = "{\"timestamp\":123,\"user\":\"kek\",\"event\":\"click\"}\n";

fn batch(command: SocketAddr, events: usize) -> Response {
    let media = [("content-type", "application/x-ndjson")];
    http(command, "POST", "/analytics/batch", &media, &ITEM.repeat(events)).unwrap()
}

/// Events with an early response, by their later outcome.
fn early(admin: SocketAddr, outcome: &str) -> u64 {
    metric(admin, &format!("millrace_command_async_events_total{{outcome=\"{outcome}\"}}"))
}

fn answered(admin: SocketAddr, code: &str) -> u64 {
    metric(admin, &format!("millrace_command_events_total{{outcome=\"{code}\"}}"))
}

/// One command service with a level of durability, on its own brokers.
struct Edge {
    service: Service,
    public: SocketAddr,
    admin: SocketAddr,
    settings: Vec<(&'static str, String)>,
}

impl Edge {
    fn start(brokers: &str, prefix: &str, durability: &str, replicas: u32) -> Self {
        let port = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (public, admin) = (port(), port());
        let settings = vec![
            ("engine", "kafka".to_owned()),
            ("prefix", format!("{prefix}.")),
            ("kafka.brokers", brokers.to_owned()),
            ("kafka.partitions", "6".to_owned()),
            ("kafka.replication_factor", replicas.to_string()),
            ("kafka.min_insync_replicas", replicas.div_ceil(2).to_string()),
            ("kafka.message_timeout", "1s".to_owned()),
            ("command.durability", durability.to_owned()),
            ("command.listen", public.to_string()),
            ("command.admin", admin.to_string()),
        ];
        let given: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let mut service = Service::start("command", &given);
        service.wait_ready(public);
        Self { service, public, admin, settings }
    }

    fn post(&self, user: &str) -> Response {
        http(self.public, "POST", &format!("/analytics?timestamp=123&user={user}&click"), &[], "").unwrap()
    }

    /// The end of each partition.
    fn ends(&self) -> Vec<u64> {
        let mut topics = tool(&["topics", "--json"]);
        ends(
            &topics
                .args(self.settings.iter().flat_map(|(key, value)| ["--set".into(), format!("{key}={value}")]))
                .output()
                .unwrap(),
        )
    }
}

#[test]
fn cached_on_the_embedded_engine_can_lose_at_a_kill_and_never_at_a_shutdown() {
    let mut up = Up::with(&[("command.durability", "cached")]);
    for _ in 0..10 {
        assert_eq!(batch(up.command, 1_000).status, 202);
    }
    let status = up.service.shut_down(WITHIN).expect("it ends within shutdown_grace");
    assert!(status.success(), "{}", up.service.log());
    up.service.restart();
    up.service.wait_ready(up.command);
    assert_eq!(up.stored(), 10_000, "what waited was written before the end");

    for _ in 0..10 {
        assert_eq!(batch(up.command, 1_000).status, 202);
    }
    up.service.restart();
    up.service.wait_ready(up.command);
    let stored = up.stored();
    assert!((10_000..=20_000).contains(&stored), "{stored}");
    let counted = format!("unique_users,1\nclicks,{stored}\nimpressions,0\n");
    assert!(wait_until(WITHIN, || up.lines(123) == counted), "{} of {stored}", up.lines(123));
}

#[test]
fn cached_on_kafka_loses_with_its_broker_and_reports_it_and_replicated_acknowledges_nothing() {
    let mut kafka = match Kafka::start() {
        Ok(kafka) => kafka,
        Err(why) => return not_run("the level cached", "Apache Kafka", &why),
    };
    let prefix = unique("durability");
    let mut replicated = Edge::start(&kafka.brokers(), &prefix, "replicated", 1);
    let mut cached = Edge::start(&kafka.brokers(), &prefix, "cached", 1);
    assert_eq!((replicated.post("a").status, cached.post("a").status), (204, 202));
    assert!(wait_until(WITHIN, || early(cached.admin, "stored") == 1));

    kafka.freeze();
    for _ in 0..10 {
        let answer = cached.post("a");
        assert_eq!((answer.status, answer.header("millrace-position")), (202, None), "{answer:?}");
    }
    let answer = replicated.post("a");
    assert!(answer.status == 503 && answer.text().contains("outcome-unknown"), "{answer:?}");
    // What was sent lies in the frozen broker's socket, and goes with it.
    kafka.kill();
    assert!(wait_until(WITHIN, || early(cached.admin, "unknown") == 10), "{}", early(cached.admin, "unknown"));
    assert_eq!(metric(cached.admin, "millrace_command_async_pending"), 0);
    assert_eq!((answered(cached.admin, "accepted"), answered(replicated.admin, "accepted")), (11, 1));
    assert_eq!(answered(replicated.admin, "outcome-unknown"), 1);

    kafka.restart().unwrap();
    cached.service.wait_ready(cached.public);
    replicated.service.wait_ready(replicated.public);
    assert_eq!(cached.ends().iter().sum::<u64>(), 2, "eleven got 202, one got 204; two are stored");
}

/// Two of three brokers are frozen while the third, the leader, accepts events; then it dies, and one of the two leads.
#[test]
fn leader_loses_unreplicated_events_and_replicated_acknowledges_none() {
    let mut brokers = match Brokers::start(3, &[]) {
        Ok(brokers) => brokers,
        Err(why) => return not_run("the level leader", "Apache Kafka", &why),
    };
    let prefix = unique("durability");
    let mut leader = Edge::start(&brokers.direct(), &prefix, "leader", 3);
    let replicated = Edge::start(&brokers.direct(), &prefix, "replicated", 3);
    // The followers of a new topic begin to fetch later than `message_timeout` when the brokers share their processors.
    assert!(wait_until(WITHIN, || replicated.post("a").status == 204), "{:?}", replicated.post("a"));
    assert_eq!(leader.post("a").status, 202);

    let [first, others @ ..] = brokers.nodes() else { panic!("three brokers") };
    others.iter_mut().for_each(Kafka::freeze);
    // The users whose partition the first broker leads: those of the others get no answer in time.
    let user = (0..100).map(|number| format!("u{number}")).find(|user| leader.post(user).status == 202).unwrap();
    // A fetch that was open when its broker froze has completed by now; nothing else is replicated.
    let mut last = (0, 0);
    for _ in 0..200 {
        let answer = leader.post(&user);
        assert_eq!(answer.status, 202, "{answer:?}");
        let position = answer.header("millrace-position").unwrap();
        let (_, at) = position.split_once('/').unwrap();
        let (partition, offset) = at.split_once('@').unwrap();
        last = (partition.parse::<usize>().unwrap(), offset.parse::<u64>().unwrap());
    }
    let answer = replicated.post(&user);
    assert!(answer.status == 503 && answer.text().contains("outcome-unknown"), "{answer:?}");

    first.kill();
    others.iter_mut().for_each(Kafka::thaw);
    let taken = || leader.post(&user).status == 202;
    assert!(wait_until(WITHIN * 2, taken), "one of the others leads: {:?}", leader.post(&user));
    let (partition, offset) = last;
    let end = leader.ends()[partition];
    assert!(end <= offset, "@{offset} got 202, and the partition ends at {end}");
    let accepted = answered(leader.admin, "accepted") + answered(replicated.admin, "accepted");
    let stored: u64 = leader.ends().iter().sum();
    assert!(stored < accepted, "{stored} of {accepted}: the difference is what was lost");
    leader.service.wait_ready(leader.public);
}
