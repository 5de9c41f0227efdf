//! `millrace check-config`: reports every problem of the settings at once, starts nothing.

use std::process::ExitCode;

use millrace_service::auth::Authenticator;

use crate::EXIT_CONFIG;
use crate::settings::{DEFAULT, Settings};
use crate::text::print_line;

/// Prints the annotated defaults.
pub(crate) fn print_default() {
    print_line(DEFAULT.trim_end());
}

/// Checks the files of authentication, and summarizes the settings, which are valid at this point. Prints no secret.
pub(crate) fn run(settings: &Settings) -> ExitCode {
    if let Err(problem) = Authenticator::check(&settings.auth) {
        eprintln!("millrace: auth: {problem}");
        return ExitCode::from(EXIT_CONFIG);
    }
    let (command, query) = (settings.command.listen, settings.query.listen);
    let (engine, prefix) = (settings.engine, &settings.prefix);
    print_line(&format!(
        "the settings are valid: engine {engine}, prefix {prefix}, command on {command}, query on {query}"
    ));
    ExitCode::SUCCESS
}
