//! This test binary as a process of its own, to be killed or frozen: it runs the numbering stage until something ends it.

use std::process::{Child, Command, Stdio};

use crate::harness::{Engine, run_stage};
use crate::numbering::Numbering;

/// What the child finds in its environment.
const VARIABLE: &str = "MILLRACE_LOG_TEST_CHILD";

/// What a child does when it comes to its fail point.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Then {
    Die,
    Freeze,
}

/// Starts a child that numbers as `instance` and, on coming to `point` for the `nth` time, dies or freezes.
pub(crate) fn start(engine: &Engine, instance: &str, point: &str, nth: usize, then: Then) -> Child {
    let order = format!("{instance};{point};{nth};{then:?};{}", engine.to_child());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["child::child", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(VARIABLE, order).stdout(Stdio::null()).spawn().unwrap()
}

/// Not a test when started by the harness: it returns at once.
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
