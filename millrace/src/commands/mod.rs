//! One file per subcommand: runs it with the settings and returns the exit of the process.

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
