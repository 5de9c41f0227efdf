//! Liveness and readiness. Live means that the process answers at all; ready, that every component said so and the
//! process is not ending.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use millrace_contracts::Code;

use crate::Problem;

/// The health of a process. Cheap to clone; every clone is the same health.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    draining: AtomicBool,
    components: Mutex<Vec<State>>,
}

#[derive(Debug)]
struct State {
    name: &'static str,
    trouble: Option<String>,
}

/// One part's say in the health of its process. Not ready until it says so.
#[derive(Debug, Clone)]
pub struct Component {
    health: Health,
    index: usize,
}

/// How much a readiness answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Names of the parts that are not ready; for public listeners.
    Names,
    /// Why they are not, too; for the admin listener.
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
        components.push(State { name, trouble: Some("starting".into()) });
        Component { health: self.clone(), index: components.len() - 1 }
    }

    /// Whether requests should be sent here.
    pub fn ready(&self) -> bool {
        self.trouble(Detail::Names).is_none()
    }

    /// Every component by name, and whether it does its work.
    pub fn components(&self) -> Vec<(&'static str, bool)> {
        let components = self.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        components.iter().map(|state| (state.name, state.trouble.is_none())).collect()
    }

    /// From now on not ready, whatever the components say: the process is ending.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    /// `GET /livez` and `GET /readyz` for a public listener: names what is not ready, not why.
    pub fn router(&self) -> Router {
        self.routes(Detail::Names)
    }

    pub(crate) fn routes(&self, detail: Detail) -> Router {
        let health = self.clone();
        let readyz = move || std::future::ready(health.answer(detail));
        Router::new().route("/livez", get(|| std::future::ready("live\n"))).route("/readyz", get(readyz))
    }

    fn answer(&self, detail: Detail) -> Response {
        match self.trouble(detail) {
            None => "ready\n".into_response(),
            Some(problem) => problem.into_response(),
        }
    }

    fn trouble(&self, detail: Detail) -> Option<Problem> {
        if self.0.draining.load(Ordering::Relaxed) {
            return Some(Problem::new(Code::ShuttingDown, "the process is ending"));
        }
        let components = self.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        let troubles: Vec<String> = components
            .iter()
            .filter_map(|state| {
                let why = state.trouble.as_deref()?;
                Some(if detail == Detail::Names { state.name.to_owned() } else { format!("{}: {why}", state.name) })
            })
            .collect();
        (!troubles.is_empty()).then(|| Problem::new(Code::Unavailable, format!("not ready: {}", troubles.join("; "))))
    }
}

impl Component {
    /// The component does its work.
    pub fn ready(&self) {
        self.set(None);
    }

    /// The component does not do its work, and why.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.set(Some(why.into()));
    }

    fn set(&self, trouble: Option<String>) {
        let mut components = self.health.0.components.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut components[self.index];
        if state.trouble.is_some() != trouble.is_some() {
            match &trouble {
                None => tracing::info!(component = state.name, "component is ready"),
                Some(why) => tracing::warn!(component = state.name, why, "component is not ready"),
            }
        }
        state.trouble = trouble;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_what_all_say() {
        let health = Health::new();
        assert!(health.ready());
        let (log, store) = (health.component("log"), health.component("store"));
        log.ready();
        assert!(!health.ready());
        store.ready();
        assert!(health.ready());
        log.not_ready("no broker at 127.0.0.1:9092");
        assert_eq!(health.components(), [("log", false), ("store", true)]);
        assert_eq!(health.trouble(Detail::Names).unwrap().detail, "not ready: log");
        assert_eq!(health.trouble(Detail::Reasons).unwrap().detail, "not ready: log: no broker at 127.0.0.1:9092");
        log.ready();
        health.drain();
        assert_eq!(health.trouble(Detail::Names).unwrap().code, Code::ShuttingDown);
    }
}
