//! Readiness of the query service: whether a store answered when one was last asked.

use std::sync::atomic::{AtomicU8, Ordering};

use millrace_service::health::Component;

const UNKNOWN: u8 = 0;
const READY: u8 = 1;
const NOT_READY: u8 = 2;

/// The component `query`; told on changes only, since every read notes its outcome.
pub(crate) struct Readiness {
    component: Component,
    last: AtomicU8,
}

impl Readiness {
    pub(crate) fn new(component: Component) -> Self {
        component.not_ready("no read model has been asked yet");
        Self { component, last: AtomicU8::new(UNKNOWN) }
    }

    /// A rebuilding model has answered: its 503 is the answer every instance would give. One of two that answers is enough.
    pub(crate) fn note(&self, answered: bool) {
        let now = if answered { READY } else { NOT_READY };
        if self.last.swap(now, Ordering::AcqRel) == now {
            return;
        }
        if answered {
            self.component.ready();
        } else {
            self.component.not_ready("no read model can be reached");
        }
    }
}
