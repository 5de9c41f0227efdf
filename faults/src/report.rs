//! The report of a run: lines on the terminal, and a page.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use crate::nemesis::Tally;
use crate::print;

/// One part of a run: a row of the fault table, a random run, a negative control.
#[derive(Debug, Clone, Default)]
pub struct Part {
    /// `kafka row 5`, `embedded random, seed 7`, `control skip-dedup`.
    pub name: String,
    /// The actions and the conditions.
    pub what: String,
    /// Violated conditions and differences.
    pub differences: Vec<String>,
    /// Events that had to happen at least once and did not: the part is inconclusive.
    pub unmet: Vec<String>,
    /// Counts and measurements.
    pub facts: Vec<String>,
    /// Faults by kind.
    pub tally: BTreeMap<String, Tally>,
    /// Its duration.
    pub took: Duration,
}

impl Part {
    /// An empty part.
    pub fn new(name: impl Into<String>, what: impl Into<String>) -> Self {
        Self { name: name.into(), what: what.into(), ..Self::default() }
    }

    /// A part that could not be run.
    pub fn failed(name: impl Into<String>, why: String) -> Self {
        Self { differences: vec![why], ..Self::new(name, "Could not be run.") }
    }

    /// Whether all conditions hold and nothing is missing.
    pub fn is_green(&self) -> bool {
        self.differences.is_empty() && self.unmet.is_empty()
    }

    /// Adds a measurement.
    pub fn fact(&mut self, text: impl Into<String>) {
        self.facts.push(text.into());
    }

    /// Adds an event that must happen at least once.
    pub fn sometimes(&mut self, what: &str, count: u64) {
        self.fact(format!("{what}: {count}"));
        if count == 0 {
            self.unmet.push(format!("never: {what}"));
        }
    }

    /// Adds a condition.
    pub fn must(&mut self, holds: bool, what: impl Into<String>) {
        let what = what.into();
        if holds {
            self.facts.push(what);
        } else {
            self.differences.push(format!("violated: {what}"));
        }
    }

    /// `ok`, `FAILED` or `INCONCLUSIVE`.
    pub fn verdict(&self) -> &'static str {
        match (self.differences.is_empty(), self.unmet.is_empty()) {
            (true, true) => "ok",
            (false, _) => "FAILED",
            (true, false) => "INCONCLUSIVE",
        }
    }

    /// Prints the part.
    pub fn print(&self) {
        print(&format!("{:<12} {} ({:.0} s)", self.verdict(), self.name, self.took.as_secs_f64()));
        for fact in &self.facts {
            print(&format!("             {fact}"));
        }
        for difference in self.differences.iter().chain(&self.unmet) {
            print(&format!("           ! {}", difference.replace('\n', "\n             ")));
        }
    }
}

/// The page of a whole run.
pub fn markdown(heading: &str, parts: &[Part]) -> String {
    let mut page = format!("# Fault report\n\n{heading}\n\n| part | result | seconds |\n|---|---|---|\n");
    for part in parts {
        let _ = writeln!(page, "| {} | {} | {:.0} |", part.name, part.verdict(), part.took.as_secs_f64());
    }
    for part in parts {
        let _ = writeln!(page, "\n## {}: {}\n\n{}\n", part.name, part.verdict(), part.what);
        for fact in &part.facts {
            let _ = writeln!(page, "- {fact}");
        }
        for difference in &part.differences {
            let _ = writeln!(page, "- **difference** {}", difference.replace('\n', "\n  "));
        }
        for unmet in &part.unmet {
            let _ = writeln!(page, "- **inconclusive** {unmet}");
        }
        if !part.tally.is_empty() {
            let _ = writeln!(page, "\n| fault | scheduled | fired | took effect |\n|---|---|---|---|");
            for (kind, Tally { scheduled, fired, effective }) in &part.tally {
                let _ = writeln!(page, "| {kind} | {scheduled} | {fired} | {effective} |");
            }
        }
    }
    page
}
