//! Options of `verify-webhook`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values::span;

/// Options of `verify-webhook`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
WEBHOOK_SECRET has the secret that the subscription was created with: whsec_… or whpk_…. No argument has it: everybody on a
machine sees the arguments of a process.

The body is the bytes that arrived: parsed and printed again, or with a line feed that an editor added, it does not verify.

Exits with 0 if the request is genuine, 1 if it is not, 2 if the key or the body cannot be read.")]
pub(crate) struct VerifyWebhook {
    /// The body; - for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) body: PathBuf,
    /// File whose first line is the secret, instead of the environment
    #[arg(long, value_name = "FILE")]
    pub(crate) secret_file: Option<PathBuf>,
    /// The header webhook-id
    #[arg(long)]
    pub(crate) id: String,
    /// The header webhook-timestamp
    #[arg(long, value_name = "SECONDS")]
    pub(crate) timestamp: String,
    /// The header webhook-signature
    #[arg(long, value_name = "SIGNATURES")]
    pub(crate) signature: String,
    /// How far the timestamp may be from now, both ways
    #[arg(long, default_value = "5m", value_parser = span)]
    pub(crate) tolerance: Duration,
}
