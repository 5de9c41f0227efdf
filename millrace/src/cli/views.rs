//! Options of `verify` and `rebuild`.

use std::fmt;

use clap::{Args, ValueEnum};

use super::values::time;
use crate::client::KeySource;

/// Options of `verify`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) key: KeySource,
    /// Start of the range, such as 2026-11-21T08Z: its hour is the first one; default: the oldest
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) from: Option<i64>,
    /// End of the range, exclusive; default: the newest hour
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) to: Option<i64>,
    /// JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `rebuild`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Rebuild {
    #[command(flatten)]
    pub(crate) key: KeySource,
    /// The read model
    pub(crate) store: Store,
    /// Do not ask for confirmation
    #[arg(long)]
    pub(crate) yes: bool,
}

/// A read model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    /// The live hours in Redis
    Redis,
    /// Every hour, in PostgreSQL or in the embedded engine's directory
    Archive,
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "redis",
            Self::Archive => "archive",
        })
    }
}
