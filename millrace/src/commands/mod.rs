//! One file per subcommand: runs it with the settings and returns the exit of the process.

pub(crate) mod audit;
pub(crate) mod check_config;
pub(crate) mod command;
pub(crate) mod completions;
pub(crate) mod consume;
pub(crate) mod delivery;
pub(crate) mod doctor;
pub(crate) mod export;
pub(crate) mod import;
pub(crate) mod journal;
pub(crate) mod keys;
pub(crate) mod load;
pub(crate) mod man;
pub(crate) mod materializer;
pub(crate) mod processor;
pub(crate) mod publish;
pub(crate) mod query;
pub(crate) mod rebuild;
pub(crate) mod send;
pub(crate) mod subscription;
pub(crate) mod tail;
pub(crate) mod topic;
pub(crate) mod topics;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod verify_webhook;

use std::io::{BufRead as _, IsTerminal as _, Write as _};

/// Asks, on the terminal, whether to do what the question states.
fn confirmed(question: &str) -> anyhow::Result<bool> {
    anyhow::ensure!(std::io::stdin().is_terminal(), "standard input is not a terminal: confirm with --yes");
    eprint!("{question} Continue? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
