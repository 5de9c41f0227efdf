//! What an import came to: a few lines for people, one line of JSON for scripts.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::checkpoint::{Counts, Place};
use super::lines::Mark;

/// The result of an import, of all its runs together.
#[derive(Debug)]
pub(crate) struct Report {
    pub(super) counts: Counts,
    /// Where this run began.
    pub(super) from: Mark,
    /// Up to where everything is settled.
    pub(super) to: Mark,
    pub(super) completed: bool,
    pub(super) took: Duration,
    pub(super) place: Option<Place>,
}

impl Counts {
    /// Lines that came to nothing.
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
        let rejects = self.place.as_ref().filter(|_| self.counts.not_accepted() > 0);
        json!({
            "completed": self.completed,
            "accepted": self.counts.accepted,
            "refused": self.counts.refused,
            "bad": self.counts.bad,
            "from_line": self.from.line + 1,
            "lines": self.to.line,
            "seconds": self.took.as_secs_f64(),
            "rejects": rejects.map(|place| place.rejects.display().to_string()),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.from.line > 0 {
            writeln!(f, "went on after line {}, where an import before this one stopped", self.from.line)?;
        }
        let Counts { accepted, refused, bad } = &self.counts;
        write!(f, "{accepted} events accepted, {} refused", refused.values().sum::<u64>())?;
        let mut before = " (";
        for (code, count) in refused {
            write!(f, "{before}{code} {count}")?;
            before = ", ";
        }
        if !refused.is_empty() {
            f.write_str(")")?;
        }
        write!(f, ", {bad} lines are no events; {:.2} s", self.took.as_secs_f64())?;
        if let (Some(place), true) = (&self.place, self.counts.not_accepted() > 0) {
            write!(f, "\nthe lines that came to nothing: {}", place.rejects.display())?;
        }
        if !self.completed {
            write!(f, "\nNOT COMPLETE: everything up to line {} is settled", self.to.line)?;
            if self.place.is_some() {
                write!(f, "; the same command goes on from there")?;
            }
        }
        Ok(())
    }
}
