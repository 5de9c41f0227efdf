//! Calls of librdkafka that do not keep to a time-out: they wait for an answer as long as nobody gives one.

use std::sync::mpsc;
use std::time::Duration;

/// What `work` comes to, on a thread of its own; `None` when that takes longer than `within`. It is not ended then, but left
/// to itself with all that it took along.
pub(super) fn bounded<T: Send + 'static>(
    thread: &str,
    within: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, answer) = mpsc::sync_channel(1);
    let run = move || {
        let _ = done.send(work());
    };
    std::thread::Builder::new().name(thread.into()).spawn(run).ok()?;
    answer.recv_timeout(within).ok()
}
