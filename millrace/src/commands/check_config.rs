//! `millrace check-config`: reports every problem of the settings at once, starts nothing.

use std::process::ExitCode;

use millrace_service::auth::Authenticator;
use millrace_service::net::Tls;

use crate::EXIT_CONFIG;
use crate::settings::{DEFAULT, Settings};
use crate::text::print_line;

/// Prints the annotated defaults.
pub(crate) fn print_default() {
    print_line(DEFAULT.trim_end());
}

/// Checks the files of authentication and encryption, and summarizes the settings, which are valid at this point. Prints no secret.
pub(crate) fn run(settings: &Settings) -> ExitCode {
    let checks = [("auth", Authenticator::check(&settings.auth)), ("tls", Tls::check(&settings.tls))];
    let problems = checks.into_iter().filter_map(|(section, check)| Some((section, check.err()?)));
    if problems.inspect(|(section, problem)| eprintln!("millrace: {section}: {problem}")).count() > 0 {
        return ExitCode::from(EXIT_CONFIG);
    }
    let (command, query) = (settings.command.listen, settings.query.listen);
    let (engine, prefix) = (settings.engine, &settings.prefix);
    print_line(&format!(
        "the settings are valid: engine {engine}, prefix {prefix}, command on {command}, query on {query}"
    ));
    ExitCode::SUCCESS
}
