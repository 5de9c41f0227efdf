//! What the stores warn of while they are checked: findings, in place of log lines between them.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use super::Finding;

const TARGET: &str = "millrace_store";

/// Collects warnings of the stores, and drops every other event of the process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Warnings(Arc<Mutex<Vec<String>>>);

impl Warnings {
    /// Starts to collect. Once in a process: a second collection is empty.
    pub(crate) fn collect() -> Self {
        let warnings = Self::default();
        // An error means that something else receives the events.
        let _ = tracing::subscriber::set_global_default(warnings.clone());
        warnings
    }

    /// The warnings so far.
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let warnings = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let finding =
            |warning: String| Finding::warn("stores", warning, "see docs/operations.md, unless it is meant to be so");
        warnings.into_iter().map(finding).collect()
    }
}

impl Subscriber for Warnings {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::WARN && metadata.target().starts_with(TARGET)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::WARN)
    }

    fn event(&self, event: &Event<'_>) {
        let mut text = Text::default();
        event.record(&mut text);
        // A store that is unreachable is a finding already.
        if !text.is_failure {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(text.message);
        }
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Text {
    message: String,
    is_failure: bool,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => {
                let _ = write!(self.message, "{value:?}");
            }
            "error" => self.is_failure = true,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collects_warnings_that_are_no_failures() {
        let warnings = Warnings::default();
        tracing::subscriber::with_default(warnings.clone(), || {
            tracing::warn!(target: "millrace_store::live", "no {}", "persistence");
            tracing::warn!(target: "millrace_store::live", error = "refused", "unreachable");
            tracing::warn!(target: "other", "other");
            tracing::info!(target: "millrace_store::live", "information");
        });
        let found: Vec<String> = warnings.findings().into_iter().map(|finding| finding.found).collect();
        assert_eq!(found, ["no persistence"]);
    }
}
