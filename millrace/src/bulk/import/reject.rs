//! A line that came to nothing, with the reason.

use std::fmt;

use serde::Serialize;

use super::event::Fault;

/// At most this many are shown; all are counted, and all are in the file of rejects if there is one.
pub(super) const MOST_SHOWN: u64 = 100;

/// One line of the file of rejects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Reject {
    /// The line, the first of the file being 1.
    pub(super) line: u64,
    /// A code of the API.
    pub(super) code: &'static str,
    /// The field at fault, where one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) field: Option<String>,
    /// For people; repeats at most 64 characters of the line.
    pub(super) detail: String,
    /// Whether the service refused it; otherwise it was never sent.
    pub(super) sent: bool,
}

impl Reject {
    /// A line that is no event.
    pub(super) fn bad(line: u64, fault: Fault) -> Self {
        let Fault { code, field, detail } = fault;
        Self { line, code: code.as_str(), field: field.map(Into::into), detail, sent: false }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.code, self.detail)
    }
}
