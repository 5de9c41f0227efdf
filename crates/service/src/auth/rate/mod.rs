//! Rates of principals: requests, events and bytes a second.
//!
//! A credential has [`PrincipalLimits`], a principal has meters (`meters`), and a `Quota` has both: what one may use, and
//! what the other has used. Each process counts for itself.

mod bucket;
mod limits;
mod metered_body;
mod meters;
mod quota;
mod quotas;

pub(super) use bucket::Bucket;
pub use limits::{KeyLimits, PrincipalLimits};
pub(super) use metered_body::metered;
pub(crate) use quota::RATE_LIMIT_HEADERS;
pub(super) use quota::{Quota, Unit, now};
pub(super) use quotas::Quotas;
