//! JSON Web Tokens (RFC 7519) of one issuer, beside API keys.
//!
//! The issuer's public keys are a JWK set (RFC 7517), from a file or a URL. Whoever shows a token that one of them has
//! signed is the principal that the token names. Nothing in a token decides how it is verified: the algorithm is that of
//! the key, and the keys are those of the settings.

mod config;
mod key_set;
mod refresh;
mod refusal;
mod source;
#[cfg(test)]
pub(super) mod tests;
mod tokens;

pub use config::JwtConfig;
pub(super) use refusal::TokenRefusal;
pub(super) use source::{check, start};
pub(super) use tokens::Tokens;
