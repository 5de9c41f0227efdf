//! Options of `topics` and `tail`.

use clap::Args;

use crate::client::KeySource;
use crate::inspect::From;

/// Options of `doctor`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Doctor {
    #[command(flatten)]
    pub(crate) key: KeySource,
}

/// Options of `topics`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Topics {
    #[command(flatten)]
    pub(crate) key: KeySource,
    /// Everything about this topic, with or without the prefix
    pub(crate) topic: Option<String>,
    /// JSON instead of a table: of every topic, or of this one
    #[arg(long)]
    pub(crate) json: bool,
}

/// Options of `tail`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Tail {
    #[command(flatten)]
    pub(crate) key: KeySource,
    /// The topic, with or without the prefix
    pub(crate) topic: String,
    /// Start: beginning, end or an offset
    #[arg(long, default_value = "beginning", value_name = "WHERE")]
    pub(crate) from: From,
    /// Most records to print
    #[arg(long, value_name = "N")]
    pub(crate) max: Option<u64>,
    /// Continue at the end
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only this partition
    #[arg(long, value_name = "P")]
    pub(crate) partition: Option<u32>,
    /// One JSON object per line instead of text
    #[arg(long)]
    pub(crate) json: bool,
}
