//! This test binary as a child process that a test kills or freezes: it runs the numbering stage until it ends.

use std::process::{Child, Command, Stdio};

use crate::harness::{Engine, run_stage};
use crate::numbering::Numbering;

/// The environment variable with the child's order.
const VARIABLE: &str = "MILLRACE_LOG_TEST_CHILD";

/// What a child does at its fail point.
#[derive(Debug, Clone, Copy)]
pub(crate) enum OnHit {
    Die,
    Freeze,
}

/// Starts a child that runs the stage as `instance` and dies or freezes at the `nth` hit of `point`.
pub(crate) fn start(engine: &Engine, instance: &str, point: &str, nth: usize, then: OnHit) -> Child {
    let order = format!("{instance};{point};{nth};{then:?};{}", engine.to_child());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child::child", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(VARIABLE, order).stdout(Stdio::null()).spawn().unwrap()
}

/// The entry point of a child; as a test it returns at once.
#[test]
fn child() {
    let Ok(order) = std::env::var(VARIABLE) else { return };
    let [instance, point, nth, then, engine] = order.splitn(5, ';').collect::<Vec<_>>()[..] else { panic!("{order}") };
    let freeze = then == "Freeze";
    let left = std::sync::atomic::AtomicUsize::new(nth.parse().unwrap());
    if !point.is_empty() {
        let at_point = move || {
            if left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) != 1 {
                return;
            }
            let own = rustix::process::getpid();
            let signal = if freeze { rustix::process::Signal::STOP } else { rustix::process::Signal::KILL };
            rustix::process::kill_process(own, signal).unwrap();
        };
        fail::cfg_callback(point, at_point).unwrap();
    }
    let engine = Engine::from_parent(engine);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let log = engine.open().await;
        run_stage(&log, Numbering, "numbering", instance).task.await.unwrap().unwrap();
    });
}
