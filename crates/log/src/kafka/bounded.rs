//! Bounds librdkafka calls that do not honor a timeout: they wait until a broker responds.

use std::sync::mpsc;
use std::time::Duration;

/// Runs `work` on its own thread; `None` if it takes longer than `within`. The thread then continues in the background,
/// with everything that `work` captured.
pub(super) fn bounded<T: Send + 'static>(
    thread: &str,
    within: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, result) = mpsc::sync_channel(1);
    let run = move || {
        let _ = sender.send(work());
    };
    std::thread::Builder::new().name(thread.into()).spawn(run).ok()?;
    result.recv_timeout(within).ok()
}
