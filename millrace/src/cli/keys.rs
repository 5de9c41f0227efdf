//! Options of `keys`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use jiff::{Timestamp, ToSpan as _};
use millrace_base::{Size, Span};
use millrace_service::auth::{KeyLimits, Scope};

use super::values::timestamp;

/// The subcommands of `keys`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Keys {
    /// Create a key and print it, this once; adds its entry to the keys file. With --san, an entry for certificates of clients
    Create(CreateKey),
    /// List the keys without their secrets
    List(ListKeys),
    /// Remove a key; who uses it gets 401 within two seconds
    Revoke(RevokeKey),
}

/// Options of `keys create`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Prints the key alone on standard output; the keys file has its SHA-256 only. The principal is key:NAME. To rotate a key, create
another of the same name, and revoke the old one by its id once nobody uses it.

With --san there is no key: the entry is for clients that show a certificate with that subject alternative name, signed by an
authority in tls.client_ca_file. Their principal is cert:SAN.

Scopes: events:write, counts:read, topics:manage, topics:publish, topics:subscribe, intake:write, admin (everything), and
pixel:write, the only one that a key on a public page should have, and that goes with no other.")]
pub(crate) struct CreateKey {
    /// Who the key is for: 1 to 64 of A-Z a-z 0-9 . _ -
    pub(crate) name: String,
    /// What the key allows; repeatable, or separated by commas
    #[arg(long = "scope", required = true, value_delimiter = ',', value_name = "SCOPE")]
    pub(crate) scopes: Vec<Scope>,
    /// An entry for certificates with this subject alternative name, such as sensor7.example or a SPIFFE id, in
    /// place of a key
    #[arg(long, value_name = "SAN")]
    pub(crate) san: Option<String>,
    /// End of the key or entry: a duration from now, such as 90d, or a time, such as 2027-01-31
    #[arg(long, value_name = "WHEN", value_parser = expiry)]
    pub(crate) expires: Option<Timestamp>,
    #[command(flatten)]
    pub(crate) limits: LimitOptions,
    #[command(flatten)]
    pub(crate) file: KeysFile,
}

/// Limits of a key in place of those in `[auth.limits]`.
#[derive(Debug, Clone, Args)]
pub(crate) struct LimitOptions {
    /// Requests per second; 0 for no bound; otherwise that of the settings
    #[arg(long = "max-request-rate", value_name = "N")]
    requests: Option<u32>,
    /// Events and messages per second; 0 for no bound; otherwise that of the settings
    #[arg(long = "max-event-rate", value_name = "N")]
    events: Option<u32>,
    /// Bytes per second, such as 1MiB; 0B for no bound; otherwise that of the settings
    #[arg(long = "max-byte-rate", value_name = "SIZE", value_parser = size)]
    bytes: Option<Size>,
}

impl From<LimitOptions> for KeyLimits {
    fn from(options: LimitOptions) -> Self {
        Self { max_request_rate: options.requests, max_event_rate: options.events, max_byte_rate: options.bytes }
    }
}

/// Options of `keys list`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListKeys {
    /// JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) file: KeysFile,
}

/// Options of `keys revoke`.
#[derive(Debug, Clone, Args)]
pub(crate) struct RevokeKey {
    /// The id of the key, or its name if no other key has it
    #[arg(value_name = "ID|NAME")]
    pub(crate) key: String,
    #[command(flatten)]
    pub(crate) file: KeysFile,
}

/// The file of API keys.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeysFile {
    /// The keys file; default: the one of the settings
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

fn size(text: &str) -> Result<Size, String> {
    Size::parse(text).ok_or_else(|| "must be a whole number with a unit, such as 64KiB".into())
}

fn expiry(text: &str) -> Result<Timestamp, String> {
    let now = Timestamp::now();
    let time = match Span::parse(text) {
        Some(span) => {
            let ms = i64::try_from(span.as_millis()).map_err(|_| "is too far away")?;
            now.checked_add(ms.milliseconds()).map_err(|_| "is too far away")?
        }
        None => timestamp(text).map_err(|why| format!("{why}; or a duration such as 90d"))?,
    };
    if time <= now { Err("must be in the future".into()) } else { Ok(time) }
}
