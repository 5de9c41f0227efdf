//! Events into the log, for every protocol: append, and the durability that an answer waits for.

mod append;
mod durability;

pub(crate) use append::{Appender, Encoded, Placed, Position, refusal_of};
pub use durability::Durability;
pub(crate) use durability::Terms;
