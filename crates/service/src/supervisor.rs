//! The supervisor of a process: its components end together, within the shutdown grace.

use std::collections::HashMap;
use std::fmt::Display;
use std::time::Duration;

use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Why a process ended without a request to stop, or not in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SupervisorError {
    /// A component failed.
    #[error("{name} failed: {why}")]
    Failed {
        /// The component.
        name: &'static str,
        /// Its error, or that it panicked.
        why: String,
    },
    /// A component ended without a request to stop.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
    /// Components were still running after the grace and were aborted.
    #[error("aborted after the shutdown grace: {0}")]
    Overdue(String),
}

/// Runs the long-lived components of a process. The first one to end stops all.
#[derive(Debug)]
pub struct Supervisor {
    stop: CancellationToken,
    grace: Duration,
    tasks: JoinSet<Result<(), String>>,
    names: HashMap<Id, &'static str>,
}

/// What a component returns: nothing if it cannot fail, or a result.
pub trait Exit {
    /// The error as text.
    fn result(self) -> Result<(), String>;
}

impl Exit for () {
    fn result(self) -> Result<(), String> {
        Ok(())
    }
}

impl<E: Display> Exit for Result<(), E> {
    fn result(self) -> Result<(), String> {
        self.map_err(|error| error.to_string())
    }
}

type Joined = Result<(Id, Result<(), String>), JoinError>;

impl Supervisor {
    /// A supervisor of components that watch `stop`; once it is canceled they have `grace` to end.
    pub fn new(stop: CancellationToken, grace: Duration) -> Self {
        Self { stop, grace, tasks: JoinSet::new(), names: HashMap::new() }
    }

    /// Starts a component.
    pub fn spawn<E: Exit>(&mut self, name: &'static str, task: impl Future<Output = E> + Send + 'static) {
        let handle = self.tasks.spawn(async move { task.await.result() });
        self.names.insert(handle.id(), name);
    }

    /// Waits for the stop token or for the first component that ends, then stops all and waits at most the grace.
    ///
    /// # Errors
    /// When a component failed, ended unexpectedly or was still running after the grace; the first of these.
    pub async fn run(mut self) -> Result<(), SupervisorError> {
        let mut first = tokio::select! {
            // A component that ends because of the token did not end unexpectedly.
            biased;
            () = self.stop.cancelled() => None,
            Some(ending) = self.tasks.join_next_with_id() => {
                let (name, result) = self.named(ending);
                Some(result.and(Err(SupervisorError::Ended(name))))
            }
        };
        self.stop.cancel();
        let deadline = tokio::time::Instant::now() + self.grace;
        loop {
            match tokio::time::timeout_at(deadline, self.tasks.join_next_with_id()).await {
                Ok(None) => break,
                Ok(Some(ending)) => {
                    let (_, result) = self.named(ending);
                    first = first.filter(Result::is_err).or(Some(result));
                }
                Err(_) => {
                    let mut late: Vec<_> = self.names.values().copied().collect();
                    late.sort_unstable();
                    self.tasks.shutdown().await;
                    return first.unwrap_or(Ok(())).and(Err(SupervisorError::Overdue(late.join(", "))));
                }
            }
        }
        first.unwrap_or(Ok(()))
    }

    /// Logs the end of a component and returns its name with the result.
    fn named(&mut self, ending: Joined) -> (&'static str, Result<(), SupervisorError>) {
        let (id, result) = match ending {
            Ok((id, result)) => (id, result),
            Err(error) if error.is_panic() => (error.id(), Err("it panicked".to_owned())),
            Err(error) => (error.id(), Err("it was canceled".to_owned())),
        };
        let name = self.names.remove(&id).unwrap_or("a component");
        match &result {
            Ok(()) => tracing::info!(component = name, "component ended"),
            Err(why) => tracing::error!(component = name, why, "component failed"),
        }
        (name, result.map_err(|why| SupervisorError::Failed { name, why }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn until(stop: CancellationToken) -> Result<(), String> {
        stop.cancelled().await;
        Ok(())
    }

    #[tokio::test]
    async fn the_first_failure_stops_all_components_and_is_the_result() {
        let stop = CancellationToken::new();
        let mut supervisor = Supervisor::new(stop.clone(), Duration::from_mins(1));
        supervisor.spawn("steady", until(stop.clone()));
        supervisor.spawn("faulty", std::future::ready(Err("broken")));
        let error = supervisor.run().await.unwrap_err();
        assert_eq!(error, SupervisorError::Failed { name: "faulty", why: "broken".into() });
        assert!(stop.is_cancelled());
    }

    #[tokio::test]
    async fn an_unexpected_end_is_an_error() {
        let mut supervisor = Supervisor::new(CancellationToken::new(), Duration::from_mins(1));
        supervisor.spawn("brief", std::future::ready(Ok::<_, String>(())));
        assert_eq!(supervisor.run().await, Err(SupervisorError::Ended("brief")));
    }

    #[tokio::test]
    async fn a_stop_succeeds_unless_it_exceeds_the_grace() {
        let stop = CancellationToken::new();
        let mut supervisor = Supervisor::new(stop.clone(), Duration::from_millis(20));
        supervisor.spawn("steady", until(stop.clone()));
        stop.cancel();
        assert_eq!(supervisor.run().await, Ok(()));

        let mut supervisor = Supervisor::new(stop.clone(), Duration::from_millis(20));
        supervisor.spawn("deaf", std::future::pending::<Result<(), String>>());
        assert_eq!(supervisor.run().await, Err(SupervisorError::Overdue("deaf".into())));
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let mut supervisor = Supervisor::new(CancellationToken::new(), Duration::from_mins(1));
        supervisor.spawn("rash", async { if true { panic!("on purpose") } else { Ok::<_, String>(()) } });
        let error = supervisor.run().await.unwrap_err();
        assert_eq!(error, SupervisorError::Failed { name: "rash", why: "it panicked".into() });
    }
}
