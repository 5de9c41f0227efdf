//! What Redis' errors mean for what happens next.

use millrace_contracts::StoreError;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Server errors without a kind of their own that waiting does not heal: data or rights are not as they should be.
const STOP_CODES: [&str; 5] = ["WRONGTYPE", "MALFORMED", "NOAUTH", "WRONGPASS", "DENIED"];

/// Sorts an error. Whatever is not known to need a person is tried again: OOM, MISCONF, LOADING, READONLY and a lost
/// connection pass.
pub(super) fn classify(error: RedisError) -> StoreError {
    let detail = format!("redis: {error}");
    let sorted = match error.kind() {
        ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig
        | ErrorKind::Parse
        | ErrorKind::UnexpectedReturnType
        | ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::CrossSlot) => StoreError::stop(detail),
        _ if error.code().is_some_and(|code| STOP_CODES.contains(&code)) => StoreError::stop(detail),
        _ => StoreError::retry(detail),
    };
    sorted.because(error)
}

/// Whether the script cache was emptied: a restart, a failover or SCRIPT FLUSH.
pub(super) fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_contracts::Next;

    fn of(reply: &str) -> Next {
        let value = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes()).unwrap();
        classify(value.extract_error().unwrap_err()).next
    }

    #[test]
    fn server_errors_are_sorted_by_what_happens_next() {
        for reply in ["LOADING x", "READONLY x", "OOM x", "MISCONF x", "NOREPLICAS x", "NOSCRIPT x", "BUSY x", "ERR x"]
        {
            assert_eq!(of(reply), Next::Retry, "{reply}");
        }
        for reply in ["WRONGTYPE x", "NOPERM x", "NOAUTH x", "WRONGPASS x", "MALFORMED x"] {
            assert_eq!(of(reply), Next::Stop, "{reply}");
        }
    }
}
