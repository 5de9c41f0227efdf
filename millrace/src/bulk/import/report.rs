//! The result of an import: a few lines for people, one line of JSON for scripts.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::checkpoint::{CheckpointFiles, Counts};
use super::lines::Mark;
use crate::text::plural;

/// The result of an import, of all its runs together.
#[derive(Debug)]
pub(crate) struct Report {
    pub(super) counts: Counts,
    /// Start of this run.
    pub(super) from: Mark,
    /// Every line before this has a final outcome.
    pub(super) to: Mark,
    pub(super) completed: bool,
    pub(super) took: Duration,
    pub(super) files: Option<CheckpointFiles>,
}

impl Counts {
    /// Rejected lines: invalid, or refused by the service.
    pub(super) fn not_accepted(&self) -> u64 {
        self.bad + self.refused.values().sum::<u64>()
    }
}

impl Report {
    /// Whether every line is in the log.
    pub(crate) fn is_whole(&self) -> bool {
        self.completed && self.counts.not_accepted() == 0
    }

    /// One line for scripts.
    pub(crate) fn json(&self) -> Value {
        let rejects = self.files.as_ref().filter(|_| self.counts.not_accepted() > 0);
        json!({
            "completed": self.completed,
            "accepted": self.counts.accepted,
            "refused": self.counts.refused,
            "bad": self.counts.bad,
            "from_line": self.from.line + 1,
            "lines": self.to.line,
            "seconds": self.took.as_secs_f64(),
            "rejects": rejects.map(|files| files.rejects.display().to_string()),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from.line > 0 {
            writeln!(f, "resumed after line {}, where an earlier import stopped", self.from.line)?;
        }
        let Counts { accepted, refused, bad } = &self.counts;
        write!(f, "{} accepted, {} refused", plural(*accepted, "event"), refused.values().sum::<u64>())?;
        let mut before = " (";
        for (code, count) in refused {
            write!(f, "{before}{code} {count}")?;
            before = ", ";
        }
        if !refused.is_empty() {
            f.write_str(")")?;
        }
        write!(f, ", {} invalid; {:.2} s", plural(*bad, "line"), self.took.as_secs_f64())?;
        if let (Some(files), true) = (&self.files, self.counts.not_accepted() > 0) {
            write!(f, "\nrejected lines are in {}", files.rejects.display())?;
        }
        if !self.completed && self.to.line == 0 {
            write!(f, "\nINCOMPLETE: no line has a final outcome")?;
        } else if !self.completed {
            write!(f, "\nINCOMPLETE: every line up to {} has a final outcome", self.to.line)?;
            if self.files.is_some() {
                write!(f, "; the same command resumes from there")?;
            }
        }
        Ok(())
    }
}
