//! Refusals of fields.

use millrace_contracts::{Code, Refusal};

/// A required field is missing.
pub(crate) fn missing(field: &'static str) -> Refusal {
    Refusal::new(Code::MissingField, format!("{field} is missing")).field(field)
}

/// A field has an invalid value.
pub(crate) fn invalid(field: &'static str, detail: String) -> Refusal {
    Refusal::new(Code::InvalidField, detail).field(field)
}
