//! The quotas of credentials.

use std::sync::Arc;

use super::meters::Meters;
use super::{KeyLimits, PrincipalLimits, Quota};

/// The configured limits, and the meters of all principals.
#[derive(Debug)]
pub(in super::super) struct Quotas {
    limits: PrincipalLimits,
    meters: Meters,
}

impl Quotas {
    /// These limits, for credentials that have none of their own.
    pub(in super::super) fn new(limits: PrincipalLimits) -> Arc<Self> {
        Arc::new(Self { limits, meters: Meters::default() })
    }

    /// The quota of a credential of a principal; `None` if it has no limits.
    pub(in super::super) fn of(&self, principal: &str, own: KeyLimits) -> Option<Quota> {
        Quota::new(own.or(self.limits), || self.meters.of(principal))
    }
}
