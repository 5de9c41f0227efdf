//! The open files of the process: each connection of any listener is one, and the log and the stores need others. One
//! budget for all listeners: the engine that finds no file descriptor fails, and its process with it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// File descriptors reserved for the log, the stores and everything else that is no connection of a listener, but at most
/// half of the limit. The embedded engine keeps up to 900 tables open, push has up to 2,000 requests in flight.
const RESERVE: u64 = 4_096;
/// Connections of each listener that come out of the reserve: no listener, such as the one with the health, is locked out by
/// the clients of another.
const OWN: usize = 32;

/// The share of the budget that one listener may have, in quarters: its clients do not lock out those of the others.
const SHARE: usize = 3;

/// A listener that can close idle connections.
pub(super) trait Evict: Send + Sync {
    fn evict_idle(&self);
}

/// A budget of connections.
pub(super) struct FileBudget {
    max: usize,
    shared: AtomicUsize,
    listeners: Mutex<Vec<Weak<dyn Evict>>>,
}

/// One connection of a budget; dropping it gives it back.
pub(super) struct FilePermit(Option<Arc<FileBudget>>);

impl FileBudget {
    /// A budget of `max` connections, beside [`OWN`] of each listener.
    pub(super) fn new(max: usize) -> Self {
        Self { max, shared: AtomicUsize::new(0), listeners: Mutex::default() }
    }

    /// The budget of this process. Raises the soft limit of open files to the hard one.
    pub(super) fn of_process() -> Arc<Self> {
        static BUDGET: OnceLock<Arc<FileBudget>> = OnceLock::new();
        BUDGET.get_or_init(|| Arc::new(Self::new(fitting_connections()))).clone()
    }

    /// Adds a listener whose idle connections may be closed in favor of any other.
    pub(super) fn register(&self, listener: Weak<dyn Evict>) {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(listener);
    }

    /// A permit for one more connection of a listener that has `open`; `None` if the budget is used up.
    pub(super) fn acquire(self: &Arc<Self>, open: usize) -> Option<FilePermit> {
        if open < OWN {
            return Some(FilePermit(None));
        }
        let permit = FilePermit(Some(self.clone()));
        (self.shared.fetch_add(1, Ordering::Relaxed) < self.max).then_some(permit)
    }

    /// Closes idle connections of every listener.
    pub(super) fn evict_idle(&self) {
        let listeners: Vec<_> = {
            let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
            listeners.iter().filter_map(Weak::upgrade).collect()
        };
        for listener in listeners {
            listener.evict_idle();
        }
    }

    /// The connections that one listener may have.
    pub(super) fn fit(&self, wanted: usize) -> usize {
        let fit = (self.max / 4 * SHARE).saturating_add(OWN);
        if fit < wanted {
            tracing::warn!(
                wanted,
                connections = fit,
                "the limit of open files allows fewer connections than configured: three quarters of what is not reserved, \
                 since listeners share it"
            );
        }
        wanted.min(fit)
    }
}

impl Drop for FilePermit {
    fn drop(&mut self) {
        if let Some(budget) = &self.0 {
            budget.shared.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn fitting_connections() -> usize {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "cannot raise the limit of open files");
        }
    }
    let Some(files) = getrlimit(Resource::Nofile).current else { return usize::MAX / 2 };
    usize::try_from(files - RESERVE.min(files / 2)).unwrap_or(usize::MAX / 2)
}
