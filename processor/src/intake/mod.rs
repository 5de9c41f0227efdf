//! Messages of TCP intake: each to the journal once, in the order of its connection.
//!
//! Records come from `intake` and go to `intake.journal`; what is remembered of clients goes to `intake.state`. What is a
//! duplicate is a function of the log alone.

mod arrivals;
mod clients;
mod ranges;
mod run;
mod series;
mod stage;
mod state;
#[cfg(test)]
mod tests;

pub use run::run;
pub use stage::{Dedup, DedupStats, Undo};
pub use state::{Decision, DedupBounds, IntakeState};
