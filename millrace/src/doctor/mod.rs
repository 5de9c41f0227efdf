//! `millrace doctor`: reaches everything the configured engine needs and says, a line each, what is wrong and what to do.
//!
//! Findings only; printing them is the command's business. Nothing is started, and no record is written.

mod embedded;
mod kafka;
mod process;

use std::fmt;

use crate::settings::{Engine, Settings};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// Works, but a person should know.
    Warn,
    /// Does not work.
    Fail,
}

/// One line of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    /// How bad it is.
    pub(crate) level: Level,
    /// What was looked at.
    pub(crate) what: String,
    /// What was found.
    pub(crate) found: String,
    /// What to do about it.
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
            Some(advice) => write!(f, "\n      to do: {advice}"),
            None => Ok(()),
        }
    }
}

/// Looks at everything; `report` hears of each finding as it is made.
pub(crate) async fn examine(settings: &Settings, report: &mut (dyn FnMut(Finding) + Send)) {
    let running = process::examine(settings, report).await;
    match settings.engine {
        Engine::Embedded => embedded::examine(settings, running, report).await,
        Engine::Kafka => kafka::examine(settings, report).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_what_to_do() {
        assert_eq!(Finding::ok("port", "free").to_string(), "ok    port: free");
        assert_eq!(Finding::fail("port", "taken", "move").to_string(), "FAIL  port: taken\n      to do: move");
        assert!(Level::Ok < Level::Warn && Level::Warn < Level::Fail);
    }
}
