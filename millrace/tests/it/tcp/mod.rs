//! Messages over TCP into the journal, from the outside: against an oracle that reads the files by itself.

mod client;
mod crowd;
mod embedded;
mod hostile;
mod kafka;
mod oracle;
mod send;
mod tls;

pub(crate) use embedded::TcpUp;
pub(crate) use hostile::talk;
pub(crate) use oracle::journal;
pub(crate) use tls::{Encryption, borrowed, talk as talk_encrypted};
