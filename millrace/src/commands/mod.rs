//! One file a subcommand. Each says what it does with the settings and returns how the process ends.

pub(crate) mod check_config;
pub(crate) mod command;
pub(crate) mod completions;
pub(crate) mod delivery;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod journal;
pub(crate) mod load;
pub(crate) mod man;
pub(crate) mod materializer;
pub(crate) mod processor;
pub(crate) mod query;
pub(crate) mod rebuild;
pub(crate) mod send;
pub(crate) mod tail;
pub(crate) mod topics;
pub(crate) mod up;
pub(crate) mod verify;

use std::io::Write as _;

/// Prints a line of a result; a reader that went away (`| head`) ends the output, not the process.
pub(crate) fn say(line: &str) -> bool {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).is_ok()
}
