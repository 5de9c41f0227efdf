//! `millrace doctor`: checks every dependency of the configured engine and suggests what to do.
//!
//! Returns findings; the command prints them. Starts nothing and writes no record.

mod embedded;
mod kafka;
mod positions;
mod process;
mod warnings;

use std::fmt;

use millrace_service::auth::ApiKey;

use crate::settings::{Engine, Settings};

pub(crate) use warnings::Warnings;

/// Severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Works.
    Ok,
    /// Works, but needs attention.
    Warn,
    /// Does not work.
    Fail,
}

/// One line of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// The severity.
    pub(crate) level: Level,
    /// The checked object.
    pub(crate) what: String,
    /// The observation.
    pub(crate) found: String,
    /// What to do.
    pub(crate) advice: Option<String>,
}

impl Finding {
    fn ok(what: &str, found: impl Into<String>) -> Self {
        Self { level: Level::Ok, what: what.into(), found: found.into(), advice: None }
    }

    fn warn(what: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Warn, what: what.into(), found: found.into(), advice: Some(advice.into()) }
    }

    fn fail(what: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Fail, what: what.into(), found: found.into(), advice: Some(advice.into()) }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok  ",
            Level::Warn => "warn",
            Level::Fail => "FAIL",
        };
        write!(f, "{level}  {}: {}", self.what, self.found)?;
        match &self.advice {
            Some(advice) => write!(f, "\n      advice: {advice}"),
            None => Ok(()),
        }
    }
}

/// Checks everything; `report` receives each finding at once.
pub(crate) async fn examine(settings: &Settings, key: Option<&ApiKey>, report: &mut (dyn FnMut(Finding) + Send)) {
    let running = process::examine(settings, key, report).await;
    match settings.engine {
        Engine::Embedded => embedded::examine(settings, key, running, report).await,
        Engine::Kafka => kafka::examine(settings, report).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_contains_the_advice() {
        assert_eq!(Finding::ok("port", "free").to_string(), "ok    port: free");
        assert_eq!(Finding::fail("port", "taken", "move").to_string(), "FAIL  port: taken\n      advice: move");
        assert!(Level::Ok < Level::Warn && Level::Warn < Level::Fail);
    }
}
