//! Readiness of the query service: whether a store was available at the last read.

use std::sync::atomic::{AtomicU8, Ordering};

use millrace_service::health::Component;

const UNKNOWN: u8 = 0;
const READY: u8 = 1;
const NOT_READY: u8 = 2;

/// The health component `query`. Every read records its outcome; the component changes only when the outcome does.
pub(crate) struct Readiness {
    component: Component,
    last: AtomicU8,
}

impl Readiness {
    pub(crate) fn new(component: Component) -> Self {
        component.not_ready("no read model has been probed yet");
        Self { component, last: AtomicU8::new(UNKNOWN) }
    }

    /// Records whether a store answered. One of two is enough, and so is a store that is rebuilding: any other instance
    /// would return the same 503.
    pub(crate) fn record(&self, store_available: bool) {
        let now = if store_available { READY } else { NOT_READY };
        if self.last.swap(now, Ordering::AcqRel) == now {
            return;
        }
        if store_available {
            self.component.ready();
        } else {
            self.component.not_ready("no read model is available");
        }
    }

    /// Shows what an operator has to know while counts lag. The service stays ready: it serves what it has, marked stale, and
    /// every other instance lags, too.
    pub(crate) fn notice(&self, notice: Option<String>) {
        match notice {
            Some(notice) => self.component.notice(notice),
            None => self.component.clear_warning(),
        }
    }
}
