//! Threads for one service of a process that runs several.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Runtime};

/// A separate runtime: the operating system schedules its threads against the other ones. On a shared runtime, a read of Redis
/// waits at each of its polls behind all ready requests: at 20,000 per second, POST to visible took 61 ms (p99 137 ms) instead of
/// 47 ms (90 ms).
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    /// One thread for each core.
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        Builder::new_multi_thread().thread_name(name).enable_all().build().map(|runtime| Self(Some(runtime)))
    }

    /// Runs work that needs this runtime's reactor, such as listening.
    pub(crate) fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        let _entered = self.runtime().enter();
        work()
    }

    /// Spawns a task; the returned future resolves to its output and propagates its panic.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> impl Future<Output = T> + Send + 'static {
        let running = self.runtime().spawn(task);
        async move {
            match running.await {
                Ok(ended) => ended,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
        }
    }

    fn runtime(&self) -> &Runtime {
        self.0.as_ref().expect("present until the drop")
    }
}

impl Drop for Threads {
    /// Does not wait for the threads, since that panics within another runtime.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
