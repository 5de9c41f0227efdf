//! A failing commit and a failing sync, injected in a child process, since fail points are global to a process.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use millrace_contracts::Topic;
use millrace_log::{EmbeddedConfig, NewRecord, Outcome, RefusalCause};

use crate::support;

const VARIABLE: &str = "MILLRACE_FAILING_TEST";
const DISK_VARIABLE: &str = "MILLRACE_FULL_DISK_TEST";

#[test]
fn child() {
    let Ok(order) = std::env::var(VARIABLE) else { return };
    let (point, folder) = order.split_once(' ').unwrap();
    let log = support::open(&support::config(Path::new(folder)));
    let record = NewRecord { topic: Topic::EVENTS, partition: 0, key: b"k", value: b"v" };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        assert_eq!(log.append(&[record]).await, [Outcome::Acknowledged(0)]);
        fail::cfg(point, "return").unwrap();
        assert_eq!(log.append(&[record]).await, [Outcome::Unknown]);
        fail::remove(point);
        assert!(log.health().unwrap_err().contains("injected"));
        assert_eq!(log.append(&[record]).await, [Outcome::Refused(RefusalCause::Unavailable)]);
        assert_eq!(support::read_all(&log, Topic::EVENTS, 0).unwrap().len(), 1, "unsynced records are not delivered");
    });
}

#[test]
fn disk_child() {
    let Ok(folder) = std::env::var(DISK_VARIABLE) else { return };
    let config = support::config(Path::new(&folder));
    let log = support::open(&EmbeddedConfig { min_free_disk: millrace_base::Size(1), ..config });
    let record = NewRecord { topic: Topic::EVENTS, partition: 0, key: b"k", value: b"v" };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        fail::cfg("embedded::disk_full", "return").unwrap();
        assert_eq!(log.append(&[record]).await, [Outcome::Refused(RefusalCause::DiskFull)]);
        assert!(log.health().unwrap_err().contains("disk"));
        fail::remove("embedded::disk_full");
        let ready = || log.health().is_ok();
        assert!(millrace_testkit::wait_until(Duration::from_secs(20), ready), "never ready again");
        assert_eq!(log.append(&[record]).await, [Outcome::Acknowledged(0)]);
    });
}

/// A balancer sends nothing to a process that is not ready, so it must not take a write to notice the free space.
#[test]
fn after_a_full_disk_the_log_is_healthy_again_without_a_write() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["failing::disk_child", "--exact", "--nocapture", "--test-threads=1"]);
    assert!(command.env(DISK_VARIABLE, directory.path()).status().unwrap().success());
}

#[test]
fn a_failed_commit_is_unknown_and_ends_the_writer() {
    for (point, there) in [("embedded::commit", 1), ("embedded::sync", 2)] {
        let directory = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["failing::child", "--exact", "--nocapture", "--test-threads=1"]);
        let order = format!("{point} {}", directory.path().display());
        assert!(command.env(VARIABLE, order).status().unwrap().success(), "{point}");
        let log = support::open(&support::config(directory.path()));
        assert!(log.health().is_ok());
        assert_eq!(support::read_all(&log, Topic::EVENTS, 0).unwrap().len(), there, "{point}");
    }
}
