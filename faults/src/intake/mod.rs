//! Messages over TCP and the journal's files: clients that record what they were answered, a reader of the files, and the
//! comparison of both.

mod client;
mod compare;
mod files;
mod synced;

pub(crate) use client::{Clients, Habits, Sender, Tally};
pub(crate) use compare::compare;
pub(crate) use files::{Journal, read};
pub(crate) use synced::journal_writes;
