//! Liveness and readiness. A process is live if it answers at all, and ready if every component is and the process is not
//! shutting down.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use metrics::gauge;
use millrace_contracts::{Code, Refusal, metric};

use crate::Problem;

/// The health of a process. Cheap to clone; every clone is the same health.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    draining: AtomicBool,
    components: Mutex<Vec<ComponentState>>,
}

#[derive(Debug)]
struct ComponentState {
    name: &'static str,
    /// Why the component is not ready; `None` if it is.
    failure: Option<String>,
    /// What an operator should act on although the component works.
    warning: Option<Warning>,
}

#[derive(Debug)]
struct Warning {
    text: String,
    /// Whether public listeners show it, too.
    public: bool,
}

/// One component's share in the health of its process. Not ready until [`Component::ready`].
#[derive(Debug, Clone)]
pub struct Component {
    health: Health,
    index: usize,
}

/// What a readiness response names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// The components that are not ready; for public listeners.
    Names,
    /// The components and their reasons; for the admin listener.
    Reasons,
}

impl Health {
    /// The health of a process without components: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a component, not ready yet.
    pub fn component(&self, name: &'static str) -> Component {
        let mut components = self.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        components.push(ComponentState { name, failure: Some("starting".into()), warning: None });
        export(name, false);
        Component { health: self.clone(), index: components.len() - 1 }
    }

    /// Whether the process is ready for requests.
    pub fn ready(&self) -> bool {
        self.refusal(Detail::Names).is_none()
    }

    /// Every component by name, and whether it is ready.
    pub fn components(&self) -> Vec<(&'static str, bool)> {
        let components = self.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        components.iter().map(|state| (state.name, state.failure.is_none())).collect()
    }

    /// From now on not ready, whatever the components report: the process is shutting down.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// `GET /livez` and `GET /readyz` for a public listener: names the components that are not ready, without reasons, and shows
    /// the warnings that are notices.
    pub fn router(&self) -> Router {
        self.routes(Detail::Names)
    }

    pub(crate) fn routes(&self, detail: Detail) -> Router {
        let health = self.clone();
        let readyz = move || std::future::ready(health.answer(detail));
        Router::new().route("/livez", get(|| std::future::ready("live\n"))).route("/readyz", get(readyz))
    }

    fn answer(&self, detail: Detail) -> Response {
        match self.refusal(detail) {
            None => self.ready_text(detail).into_response(),
            Some(refusal) => Problem::from(refusal).into_response(),
        }
    }

    /// The body of a 200 of `/readyz`, with the warnings, one per line; on a public listener with the notices among them.
    fn ready_text(&self, detail: Detail) -> String {
        let mut text = "ready\n".to_owned();
        let components = self.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        for state in components.iter() {
            if let Some(warning) = &state.warning
                && (warning.public || detail == Detail::Reasons)
            {
                let _ = writeln!(text, "warning: {}: {}", state.name, warning.text);
            }
        }
        text
    }

    fn refusal(&self, detail: Detail) -> Option<Refusal> {
        if self.0.draining.load(Ordering::Relaxed) {
            return Some(Refusal::new(Code::ShuttingDown, "the process is shutting down"));
        }
        let components = self.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        let failures: Vec<String> = components
            .iter()
            .filter_map(|state| {
                let reason = state.failure.as_deref()?;
                Some(if detail == Detail::Names { state.name.to_owned() } else { format!("{}: {reason}", state.name) })
            })
            .collect();
        (!failures.is_empty()).then(|| Refusal::new(Code::Unavailable, format!("not ready: {}", failures.join("; "))))
    }
}

impl Component {
    /// The component is ready.
    pub fn ready(&self) {
        self.set(None);
    }

    /// The component is not ready, with the reason.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    /// Sets a warning, which does not affect readiness: the component works, but an operator should act.
    pub fn warn(&self, warning: impl Into<String>) {
        self.set_warning(Warning { text: warning.into(), public: false });
    }

    /// Sets a warning that public listeners show, too. It replaces another one.
    pub fn notice(&self, notice: impl Into<String>) {
        self.set_warning(Warning { text: notice.into(), public: true });
    }

    fn set_warning(&self, warning: Warning) {
        let mut components = self.health.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        components[self.index].warning = Some(warning);
    }

    /// Clears the warning.
    pub fn clear_warning(&self) {
        let mut components = self.health.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        components[self.index].warning = None;
    }

    fn set(&self, failure: Option<String>) {
        let mut components = self.health.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut components[self.index];
        if state.failure.is_some() != failure.is_some() {
            match &failure {
                None => tracing::info!(component = state.name, "component is ready"),
                Some(reason) => tracing::warn!(component = state.name, reason, "component is not ready"),
            }
        }
        state.failure = failure;
        export(state.name, state.failure.is_none());
    }
}

fn export(component: &'static str, ready: bool) {
    gauge!(metric::COMPONENT_READY.name, "component" => component).set(if ready { 1.0 } else { 0.0 });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_every_component_is() {
        let health = Health::new();
        assert!(health.ready());
        let (log, store) = (health.component("log"), health.component("store"));
        log.ready();
        assert!(!health.ready());
        store.ready();
        assert!(health.ready());
        log.not_ready("no broker at 127.0.0.1:9092");
        assert_eq!(health.components(), [("log", false), ("store", true)]);
        assert_eq!(health.refusal(Detail::Names).unwrap().detail, "not ready: log");
        assert_eq!(health.refusal(Detail::Reasons).unwrap().detail, "not ready: log: no broker at 127.0.0.1:9092");
        log.ready();
        store.warn("disk is nearly full");
        assert!(health.ready());
        assert_eq!(health.ready_text(Detail::Names), "ready\n");
        assert_eq!(health.ready_text(Detail::Reasons), "ready\nwarning: store: disk is nearly full\n");
        store.notice("counting stopped 40 s ago");
        for detail in [Detail::Names, Detail::Reasons] {
            assert_eq!(health.ready_text(detail), "ready\nwarning: store: counting stopped 40 s ago\n");
        }
        store.clear_warning();
        assert_eq!(health.ready_text(Detail::Reasons), "ready\n");
        health.drain();
        assert_eq!(health.refusal(Detail::Names).unwrap().code, Code::ShuttingDown);
    }
}
