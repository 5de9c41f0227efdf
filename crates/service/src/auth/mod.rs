//! Authentication and authorization: who makes a request, and what they may do.
//!
//! A credential comes in as an `Authorization` header, or as the certificate of a connection; [`Authenticator`] turns it into
//! an [`Identity`], which handlers find in the extensions of the request, and refuses what the table of routes ([`routes`]) does
//! not allow it. The identity is a principal, never an address. API keys and certificates are entries of a file ([`KeyFile`]),
//! which every process reads each second; tokens are signed by an issuer ([`JwtConfig`]).

mod audited;
mod authenticator;
mod config;
mod denial;
mod ending;
mod failures;
mod guard;
mod identity;
mod jwt;
mod key;
mod key_file;
mod keyring;
mod metrics;
mod openapi;
mod rate;
mod reload;
pub mod routes;
mod scope;

pub use authenticator::{Authenticator, Credential};
pub use config::{AuthConfig, AuthMode};
pub use denial::Denial;
pub(crate) use failures::Failures;
pub use identity::Identity;
pub use jwt::JwtConfig;
pub use key::ApiKey;
pub use key_file::{KeyEntry, KeyFile};
pub(crate) use metrics::register as register_metrics;
pub(crate) use openapi::{secure, security_schemes};
pub(crate) use rate::RATE_LIMIT_HEADERS;
pub use rate::{KeyLimits, PrincipalLimits};
pub use routes::{Access, RouteAccess};
pub use scope::{Scope, Scopes};
