//! Options of `check-config`.

use clap::Args;

/// Options of `check-config`.
#[derive(Debug, Clone, Args)]
pub(crate) struct CheckConfig {
    /// Print the annotated defaults, the manual of all settings
    #[arg(long)]
    pub(crate) print_default: bool,
}
