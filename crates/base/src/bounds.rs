//! Bounds of settings, in one grammar: `1..=64`, `"1ms"..="100ms"`, `"1KiB"..="256MiB"`.

use std::fmt::Display;
use std::ops::RangeInclusive;

/// A setting outside its bounds: the key, and what the value must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The key, below the section that was checked.
    pub key: String,
    /// What the value must be; completes the sentence "must be …".
    pub allowed: String,
}

/// Checks the settings of a section and collects every violation.
#[derive(Debug, Default)]
pub struct Bounds(Vec<Violation>);

impl Bounds {
    /// No violations yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value must lie within the range; the message shows the range as `low..=high`.
    pub fn range<T: PartialOrd + Display>(&mut self, key: &str, value: &T, range: &RangeInclusive<T>) -> &mut Self {
        self.check(range.contains(value), key, format_args!("{}..={}", range.start(), range.end()))
    }

    /// Any other rule; `allowed` completes the sentence "must be …".
    pub fn check(&mut self, holds: bool, key: &str, allowed: impl Display) -> &mut Self {
        if !holds {
            self.0.push(Violation { key: key.to_owned(), allowed: allowed.to_string() });
        }
        self
    }

    /// Adds the violations of a nested section under its name.
    pub fn section(&mut self, name: &str, violations: Vec<Violation>) -> &mut Self {
        let nested = |Violation { key, allowed }| Violation { key: format!("{name}.{key}"), allowed };
        self.0.extend(violations.into_iter().map(nested));
        self
    }

    /// Every violation, in the order of the checks.
    pub fn into_violations(self) -> Vec<Violation> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Size, Span};

    #[test]
    fn ranges_include_both_ends_and_read_as_they_are_written() {
        let mut bounds = Bounds::new();
        bounds.range("workers", &1, &(1..=64)).range("workers", &64, &(1..=64)).range("workers", &65, &(1..=64));
        bounds.range("step_time", &Span::from_millis(0), &(Span::from_millis(1)..=Span::from_millis(100)));
        bounds.range("memory", &Size::from_mib(1), &(Size::from_mib(16)..=Size::from_gib(1024)));
        bounds.check(false, "directory", "a path");
        let mut all = Bounds::new();
        all.section("processor", bounds.into_violations());
        let lines: Vec<_> = all.into_violations().into_iter().map(|v| format!("{}: {}", v.key, v.allowed)).collect();
        assert_eq!(
            lines,
            [
                "processor.workers: 1..=64",
                "processor.step_time: 1ms..=100ms",
                "processor.memory: 16MiB..=1TiB",
                "processor.directory: a path"
            ]
        );
    }
}
