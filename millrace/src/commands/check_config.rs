//! `millrace check-config`: reports every problem of the settings at once, starts nothing.

use crate::settings::{DEFAULT, Settings};
use crate::text::print_line;

/// Prints the annotated defaults.
pub(crate) fn print_default() {
    print_line(DEFAULT.trim_end());
}

/// Summarizes the settings, which are valid at this point. Prints no secret.
pub(crate) fn run(settings: &Settings) {
    let (command, query) = (settings.command.listen, settings.query.listen);
    let (engine, prefix) = (settings.engine, &settings.prefix);
    print_line(&format!(
        "the settings are valid: engine {engine}, prefix {prefix}, command on {command}, query on {query}"
    ));
}
