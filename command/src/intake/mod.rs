//! Intake, for every protocol: appends events to the log with the durability that the answer waits for.

mod append;
mod durability;

pub(crate) use append::{Appended, Appender, Encoded, Position, refusal_of};
pub use durability::Durability;
pub(crate) use durability::Terms;
