//! `millrace completions`: a completion script for a shell.

use clap::CommandFactory as _;

use crate::cli::Cli;

/// Prints the script.
pub(crate) fn run(shell: clap_complete::Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "millrace", &mut script);
    crate::text::print_line(String::from_utf8_lossy(&script).trim_end());
}
