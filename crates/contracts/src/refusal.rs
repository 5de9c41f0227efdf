//! A refusal, independent of any protocol.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::Code;

/// Why a request, an item or a message was not accepted. HTTP renders it as a problem document or as an item of the response
/// to a batch, TCP intake as a NACK, delivery as the reason of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code; clients may match on it.
    pub code: Code,
    /// The parameter, field or header at fault.
    pub field: Option<Cow<'static, str>>,
    /// One sentence for a person, lower case, without a full stop. Client input in it is shortened and escaped.
    pub detail: Cow<'static, str>,
    /// The earliest time to try again; `None` if trying again does not help, or if the protocol's default is fine.
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal with its sentence for a person.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, field: None, detail: detail.into(), retry_after: None }
    }

    /// Names the parameter, field or header at fault.
    #[must_use]
    pub fn field(self, name: impl Into<Cow<'static, str>>) -> Self {
        Self { field: Some(name.into()), ..self }
    }

    /// Sets the earliest time to try again.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        Self { retry_after: Some(after), ..self }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.field {
            Some(field) => write!(f, "{} ({field}): {}", self.code, self.detail),
            None => write!(f, "{}: {}", self.code, self.detail),
        }
    }
}

impl std::error::Error for Refusal {}
