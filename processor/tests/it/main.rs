//! The counting stage against a small reference implementation: under any interleaving, every event counts once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod engine;
mod hashing;
mod interleaving;
mod measure;
mod quarantine;
mod reference;
mod restore;
