//! Classification of Redis errors: retry or stop.

use millrace_contracts::StoreError;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Server errors without an own kind that a retry does not fix: wrong data or permissions.
const STOP_CODES: [&str; 5] = ["WRONGTYPE", "MALFORMED", "NOAUTH", "WRONGPASS", "DENIED"];

/// Classifies an error. The default is to retry: OOM, MISCONF, LOADING, READONLY and a lost connection are temporary.
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

/// Whether the script cache is empty: after a restart, a failover or SCRIPT FLUSH.
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
    fn server_errors_are_classified() {
        for reply in ["LOADING x", "READONLY x", "OOM x", "MISCONF x", "NOREPLICAS x", "NOSCRIPT x", "BUSY x", "ERR x"]
        {
            assert_eq!(of(reply), Next::Retry, "{reply}");
        }
        for reply in ["WRONGTYPE x", "NOPERM x", "NOAUTH x", "WRONGPASS x", "MALFORMED x"] {
            assert_eq!(of(reply), Next::Stop, "{reply}");
        }
    }
}
