//! A rejected line, with the reason.

use std::fmt;

use serde::Serialize;

use super::event::Fault;

/// Most rejects that are printed; all are counted, and all are in the file of rejects if there is one.
pub(super) const MAX_PRINTED: u64 = 100;

/// One line of the file of rejects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Reject {
    /// Line number, from 1.
    pub(super) line: u64,
    /// A code of the API.
    pub(super) code: &'static str,
    /// The invalid field, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) field: Option<String>,
    /// The problem, for people; repeats at most 64 characters of the line.
    pub(super) detail: String,
    /// Whether the service refused it; otherwise it was never sent.
    pub(super) sent: bool,
}

impl Reject {
    /// An invalid line.
    pub(super) fn invalid(line: u64, fault: Fault) -> Self {
        let Fault { code, field, detail } = fault;
        Self { line, code: code.as_str(), field: field.map(Into::into), detail, sent: false }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line, self.code, self.detail)
    }
}
