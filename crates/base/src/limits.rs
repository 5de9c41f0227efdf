//! Limits that several services must agree on. A writer that accepted more than a reader takes would have its
//! acknowledged records quarantined, so each of these stands once.

/// Longest user id, in bytes of UTF-8. The least is 1.
pub const MAX_USER_BYTES: usize = 256;

/// Longest event id, in bytes. The least is 1.
pub const MAX_EVENT_ID_BYTES: usize = 128;

/// Most characters of a client's input that an error message or a log line repeats.
pub const MAX_ECHO_CHARS: usize = 64;
