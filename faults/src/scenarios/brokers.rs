//! Rows 9, 10, 12 and 14: the brokers, and a transaction that its producer never ends.

use super::scenario::Scenario;
use crate::cluster::{Cluster, seconds};
use crate::fault::Fault;
use crate::random::USERS;
use crate::report::Part;
use crate::system::{Engine, Setup};

pub(super) const ROWS: &[Scenario] = &[
    Scenario {
        row: "9",
        what: "the broker restarted five times under load, alternately killed and stopped: refusals and timeouts, no false acknowledgement.",
        fail_points: false,
        own: None,
        play: bounces,
    },
    Scenario {
        row: "14",
        what: "a processor dies with its transaction open and does not return: readers resume after the session and transaction timeouts.",
        fail_points: true,
        own: None,
        play: hanging,
    },
    Scenario {
        row: "10",
        what: "three brokers with three replicas, each killed in turn (leaders, coordinators and the controller included): writes resume within 10 s.",
        fail_points: false,
        own: Some(three),
        play: killed,
    },
    Scenario {
        row: "12",
        what: "three brokers, one of them stopped for 30 s: writes resume within 10 s.",
        fail_points: false,
        own: Some(three),
        play: paused,
    },
];

fn three() -> (Setup, u64, u64) {
    (Setup { brokers: 3, instances: 1, ..Setup::new(Engine::Kafka) }, USERS, 0)
}

fn bounces(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    for round in 0..5 {
        cluster.pass(seconds(3));
        let fault = if round % 2 == 0 { Fault::BrokerKill(0) } else { Fault::BrokerStop(0) };
        fault.inject(&mut cluster.system)?;
        cluster.pass(seconds(2));
        fault.repair(&mut cluster.system)?;
        cluster.continues(part, &fault.kind(), seconds(30));
    }
    let refused = cluster.run.oracle.answered("503") + cluster.run.oracle.answered("no answer");
    part.sometimes("refused or unknown while the broker was down", refused);
    Ok(())
}

/// Requires that events of many users are acknowledged, so that every partition's leader takes part.
fn writes_resume(cluster: &mut Cluster, part: &mut Part, what: &str) {
    let before = cluster.run.oracle.acknowledged();
    let took = cluster.wait_for(seconds(10), |cluster| cluster.run.oracle.acknowledged() > before + 300);
    let text = took.map_or_else(|| "never".to_owned(), |took| format!("after {:.1} s", took.as_secs_f64()));
    part.must(took.is_some(), format!("{what}: 300 further events acknowledged {text} (at most 10 s)"));
    part.must(cluster.run.send_one(seconds(10)).is_ok(), format!("{what}: one further event acknowledged"));
}

fn killed(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(500);
    cluster.pass(seconds(5));
    for broker in 0..3 {
        let fault = Fault::BrokerKill(broker);
        fault.inject(&mut cluster.system)?;
        writes_resume(cluster, part, &format!("broker {} killed", broker + 1));
        cluster.continues(part, &format!("broker {} killed", broker + 1), seconds(40));
        fault.repair(&mut cluster.system)?;
        // It must be in sync again before the next one is killed.
        cluster.pass(seconds(10));
    }
    Ok(())
}

fn paused(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(500);
    cluster.pass(seconds(5));
    let fault = Fault::BrokerFreeze(1);
    fault.inject(&mut cluster.system)?;
    writes_resume(cluster, part, "broker 2 stopped");
    cluster.pass(seconds(20));
    fault.repair(&mut cluster.system)?;
    cluster.continues(part, "broker 2 resumed", seconds(30));
    Ok(())
}

fn hanging(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    cluster.pass(seconds(2));
    for (number, point) in ["kafka::stage::drained", "kafka::stage::offsets_sent"].into_iter().enumerate() {
        let name = format!("processor-{}", number + 1);
        cluster.system.node(&name).kill();
        let crash = format!("{point}:200");
        cluster.system.node(&name).start_with(&[("MILLRACE_CRASH", &crash), ("MILLRACE_SEED", "3")]);
        cluster.system.node(&name).leave_down();
        let died = cluster.wait_for(seconds(20), |cluster| !cluster.system.node(&name).is_running());
        part.sometimes(&format!("died at {point}"), u64::from(died.is_some()));
        let before = cluster.visible();
        let took = cluster.wait_for(seconds(20), |cluster| cluster.visible() > before + 2_000);
        let text = took.map_or_else(|| "never".to_owned(), |took| format!("after {:.1} s", took.as_secs_f64()));
        part.must(took.is_some(), format!("{point}: readers resume {text} (at most 20 s)"));
        cluster.system.node(&name).kill();
        cluster.system.node(&name).start();
        cluster.system.wait_ready()?;
    }
    Ok(())
}
