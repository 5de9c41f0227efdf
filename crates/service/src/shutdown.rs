//! Signals that end the process.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that the first SIGINT or SIGTERM cancels; a second signal exits the process at once with status 130. Call it in
/// a Tokio runtime. If a handler cannot be installed, an error is logged and the signal keeps its default action.
pub fn on_signals() -> CancellationToken {
    let stop = CancellationToken::new();
    let token = stop.clone();
    let (interrupt, terminate) = (listen(SignalKind::interrupt()), listen(SignalKind::terminate()));
    if let (Some(mut interrupt), Some(mut terminate)) = (interrupt, terminate) {
        tokio::spawn(async move {
            let mut next = async move || {
                tokio::select! {
                    _ = interrupt.recv() => "SIGINT",
                    _ = terminate.recv() => "SIGTERM",
                }
            };
            let name = next().await;
            tracing::info!(signal = name, "stopping; a second signal exits at once");
            token.cancel();
            next().await;
            std::process::exit(130);
        });
    }
    stop
}

fn listen(kind: SignalKind) -> Option<Signal> {
    signal(kind).inspect_err(|error| tracing::error!(%error, "cannot install a signal handler")).ok()
}
