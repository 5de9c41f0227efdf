//! Options of `audit`.

use clap::Args;
use jiff::Timestamp;
use millrace_base::Span;

use super::values::timestamp;
use crate::client::KeySource;

/// Options of `audit`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "\
Actions: authenticate (a refused credential), keys.reload, jwks.reload, topic.*, grant.*, subscription.*,
store.rebuild. Principals: key:NAME, jwt:SUBJECT, anonymous, os:UID (a tool), or empty.")]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) key: KeySource,
    /// Only what this principal did
    #[arg(long)]
    pub(crate) principal: Option<String>,
    /// Only this action, or all that begin with it: topic.create, topic.
    #[arg(long)]
    pub(crate) action: Option<String>,
    /// Not before: a duration up to now, such as 2h, or a time
    #[arg(long, value_name = "WHEN", value_parser = past)]
    pub(crate) since: Option<Timestamp>,
    /// Before: a duration up to now, or a time
    #[arg(long, value_name = "WHEN", value_parser = past)]
    pub(crate) until: Option<Timestamp>,
    /// One JSON object per line instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

fn past(text: &str) -> Result<Timestamp, String> {
    match Span::parse(text) {
        Some(span) => Timestamp::now().checked_sub(span.0).map_err(|_| "is too long ago".into()),
        None => timestamp(text).map_err(|why| format!("{why}; or a duration such as 2h")),
    }
}
