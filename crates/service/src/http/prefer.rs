//! `Prefer` (RFC 7240).

use ::http::{HeaderMap, HeaderName};

/// What a client prefers.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Which preference the server applied.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// The preference for an answer before the work is complete.
pub const RESPOND_ASYNC: &str = "respond-async";

/// Whether a request has a preference of this name.
pub fn prefers(headers: &HeaderMap, name: &str) -> bool {
    headers.get_all(PREFER).iter().any(|line| line_prefers(line.as_bytes(), name))
}

/// Commas within quotes do not separate preferences.
fn line_prefers(line: &[u8], name: &str) -> bool {
    let (mut quoted, mut escaped) = (false, false);
    let mut preferences = line.split(|&byte| {
        let plain = !escaped;
        escaped = plain && quoted && byte == b'\\';
        quoted ^= plain && byte == b'"';
        byte == b',' && !quoted
    });
    preferences.any(|preference| {
        let found = preference.split(|&byte| byte == b';').next().unwrap_or_default();
        found.trim_ascii().eq_ignore_ascii_case(name.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_preference_in_a_list() {
        for line in [
            "respond-async",
            "Respond-Async",
            "wait=10, respond-async",
            "respond-async; x=1",
            "a=\"b,\" ,respond-async",
        ] {
            assert!(line_prefers(line.as_bytes(), RESPOND_ASYNC), "{line}");
        }
        for line in [
            "",
            "respond-asynchronously",
            "wait=10",
            "a=\"x, respond-async\"",
            "a=\"\\\", respond-async,\"",
            "x;respond-async",
        ] {
            assert!(!line_prefers(line.as_bytes(), RESPOND_ASYNC), "{line}");
        }
    }
}
