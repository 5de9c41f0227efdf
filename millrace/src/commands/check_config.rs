//! `millrace check-config`: every problem of the settings at once, nothing started.

use super::say;
use crate::settings::{DEFAULT, Settings};

/// Prints the annotated defaults.
pub(crate) fn print_default() {
    say(DEFAULT.trim_end());
}

/// Says that the settings, which were checked before this, are fine, and what they come to. No secret is among it.
pub(crate) fn run(settings: &Settings) {
    let (command, query) = (settings.command.listen, settings.query.listen);
    let (engine, prefix) = (settings.engine, &settings.prefix);
    say(&format!("settings are fine: engine {engine}, prefix {prefix}, command on {command}, query on {query}"));
}
