//! Requests as bytes.

use std::fmt::Write as _;

/// The bytes of a request: `Host` unless `headers` have one, and `Content-Length` for a body or a method that may have one.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut head = format!("{method} {target} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str("host: localhost\r\n");
    }
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    if !body.is_empty() || !matches!(method, "GET" | "HEAD") {
        let _ = write!(head, "content-length: {}\r\n", body.len());
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_host_and_length_where_they_are_needed() {
        assert_eq!(request("GET", "/a", &[], ""), b"GET /a HTTP/1.1\r\nhost: localhost\r\n\r\n");
        assert_eq!(
            request("POST", "/a", &[("Host", "b")], "c"),
            b"POST /a HTTP/1.1\r\nHost: b\r\ncontent-length: 1\r\n\r\nc"
        );
        assert!(request("POST", "/", &[], "").ends_with(b"content-length: 0\r\n\r\n"));
    }
}
