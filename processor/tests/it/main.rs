//! The counting stage against a small reference: whatever is interleaved with it, every event counts once.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod foreign;
mod kept;
mod measure;
mod reference;
mod restore;
mod story;
