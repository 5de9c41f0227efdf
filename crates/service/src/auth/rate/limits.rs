//! Settings of the rates of principals, and of single keys.

use millrace_base::{Bounds, Size, Violation};
use serde::{Deserialize, Serialize};

/// Largest rate: a process does not come near it.
const MAX_RATE: u32 = 10_000_000;
const MAX_BYTE_RATE: Size = Size::from_gib(1024);

/// Rates of one principal, section `[auth.limits]`; 0 for no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrincipalLimits {
    /// Requests a second.
    pub max_request_rate: u32,
    /// Events and messages a second.
    pub max_event_rate: u32,
    /// Bytes a second of request bodies and of messages over TCP.
    pub max_byte_rate: Size,
}

/// Rates of one key in place of the configured ones.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyLimits {
    /// Requests a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_request_rate: Option<u32>,
    /// Events and messages a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_event_rate: Option<u32>,
    /// Bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_byte_rate: Option<Size>,
}

impl PrincipalLimits {
    /// No bounds.
    pub const NONE: Self = Self { max_request_rate: 0, max_event_rate: 0, max_byte_rate: Size(0) };

    /// Every setting outside its bounds.
    pub fn validate(&self) -> Vec<Violation> {
        let mut bounds = Bounds::new();
        bounds
            .range("max_request_rate", &self.max_request_rate, &(0..=MAX_RATE))
            .range("max_event_rate", &self.max_event_rate, &(0..=MAX_RATE))
            .range("max_byte_rate", &self.max_byte_rate, &(Size(0)..=MAX_BYTE_RATE));
        bounds.into_violations()
    }
}

impl KeyLimits {
    /// These, and those of `others` where there is none.
    pub fn or(&self, others: PrincipalLimits) -> PrincipalLimits {
        PrincipalLimits {
            max_request_rate: self.max_request_rate.unwrap_or(others.max_request_rate),
            max_event_rate: self.max_event_rate.unwrap_or(others.max_event_rate),
            max_byte_rate: self.max_byte_rate.unwrap_or(others.max_byte_rate),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
