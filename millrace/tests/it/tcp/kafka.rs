//! On Apache Kafka: processes of their own, killed in the middle.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use millrace_testkit::{free_port, wait_until};

use super::client::Fate;
use super::embedded::{clients, run_all};
use super::oracle::assert_right;
use crate::cluster::Cluster;
use crate::run::WITHIN;

#[test]
fn every_acknowledged_message_is_in_the_journal_once_whatever_dies() {
    let suite = "TCP intake on Kafka";
    let Some(brokers) = millrace_testkit::kafka(suite) else { return };
    let directory = tempfile::tempdir().unwrap();
    let journal = directory.path().join("journal");
    let server = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (listen, path) = (server.to_string(), journal.display().to_string());
    let settings =
        [("command.tcp.enabled", "true"), ("command.tcp.listen", listen.as_str()), ("journal.directory", &path)];
    let Some(mut cluster) = Cluster::with(brokers, suite, 1, &settings) else { return };
    let acked = Arc::new(AtomicU64::new(0));
    let running = {
        let acked = acked.clone();
        thread::spawn(move || run_all(clients(12, 2_500), &[server], &acked))
    };
    for (turn, role) in (1..).zip(["command", "processor", "materializer", "command", "processor", "materializer"]) {
        assert!(wait_until(WITHIN, || acked.load(Ordering::Relaxed) >= turn * 3_000), "{turn}");
        let node = cluster.node(role);
        node.service.kill();
        node.service.restart();
        node.wait_ready();
    }
    let fates = running.join().unwrap();
    assert!(fates.iter().all(|(_, fates)| fates.iter().all(|fate| *fate != Fate::Unknown)));
    assert_right(&journal, &fates, WITHIN * 2);
    let verify = cluster.tool(&["journal", "verify"]);
    assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stdout));
}
