//! Intake over TCP, protocol `tcp/1`.
//!
//! Bytes come in through `wire` (encrypted or not), which `connection` drives, become lines and frames (`frame`), are put in
//! order and answered by `session`, which has no I/O, and go out as records of `intake`. A frame is acknowledged once the log has it, always on
//! all replicas in sync. Duplicates are dropped later, by the processor. `docs/tcp.md` describes the protocol.

mod admission;
mod config;
mod connection;
mod frame;
mod handle;
mod intake;
mod lag;
mod listener;
mod metrics;
mod replies;
mod reply;
mod round;
mod series;
mod session;
#[cfg(test)]
mod tests;
mod wire;

pub use config::{TcpConfig, TcpLimits};
pub use listener::run;
