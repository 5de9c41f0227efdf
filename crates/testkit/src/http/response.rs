//! Responses, and their parser.

use std::io::{self, ErrorKind};
use std::ops::Range;

use serde_json::Value;

/// The longest head that the parser accepts, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// A complete response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header lines in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, chunks joined, content coding as received.
    pub body: Vec<u8>,
}

impl Response {
    /// The first header of this (lower case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Every value of the header of this (lower case) name.
    pub fn header_values(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The body as text; `(not UTF-8)` if it is none.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or("(not UTF-8)")
    }

    /// The body as text of its own.
    pub fn into_text(self) -> String {
        self.text().to_owned()
    }

    /// The body as JSON; `null` if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The `code` of a problem document; empty if there is none.
    pub fn code(&self) -> String {
        self.member("code")
    }

    /// The `field` that a problem document names; empty if there is none.
    pub fn field(&self) -> String {
        self.member("field")
    }

    fn member(&self, name: &str) -> String {
        self.json()[name].as_str().unwrap_or_default().to_owned()
    }

    /// Whether the server closes the connection after this response.
    pub fn is_last(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// Takes the first final response out of `bytes`, skipping interim ones. Returns `None` while it is incomplete.
///
/// `head_only` for the response to HEAD. `ended`: the server has sent everything; what is incomplete now is an error.
pub(super) fn take(bytes: &mut Vec<u8>, head_only: bool, ended: bool) -> io::Result<Option<Response>> {
    loop {
        let Some(end) = find(bytes, b"\r\n\r\n").map(|at| at + 4) else {
            return match ended {
                true => Err(ErrorKind::UnexpectedEof.into()),
                false if bytes.len() > MAX_HEAD => Err(invalid("the head of the response is too long")),
                false => Ok(None),
            };
        };
        let (status, headers) = head(&bytes[..end - 4]).ok_or_else(|| invalid("not an HTTP response"))?;
        if (100..200).contains(&status) && status != 101 {
            bytes.drain(..end);
            continue;
        }
        let mut response = Response { status, headers, body: Vec::new() };
        let Some((body, rest)) = body(&response, &bytes[end..], head_only, ended)? else {
            return if ended { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(None) };
        };
        response.body = body;
        bytes.drain(..end + rest);
        return Ok(Some(response));
    }
}

/// The body and the length of its encoded form; `None` while it is incomplete.
fn body(response: &Response, bytes: &[u8], head_only: bool, ended: bool) -> io::Result<Option<(Vec<u8>, usize)>> {
    if head_only || matches!(response.status, 204 | 304) {
        return Ok(Some((Vec::new(), 0)));
    }
    if response.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return chunked(bytes);
    }
    let Some(length) = response.header("content-length") else {
        return Ok(ended.then(|| (bytes.to_vec(), bytes.len())));
    };
    let length = length.parse().map_err(|_| invalid("the content-length is not a number"))?;
    Ok(bytes.get(..length).map(|body| (body.to_vec(), length)))
}

fn chunked(bytes: &[u8]) -> io::Result<Option<(Vec<u8>, usize)>> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let Some(line) = bytes.get(at..).and_then(|rest| find(rest, b"\r\n")) else { return Ok(None) };
        let size = std::str::from_utf8(&bytes[at..at + line]).ok();
        let size = size.and_then(|size| usize::from_str_radix(size.split(';').next()?.trim(), 16).ok());
        let size = size.ok_or_else(|| invalid("the size of a chunk is not a number"))?;
        at += line + 2;
        let chunk: Range<usize> = at..at + size;
        if bytes.get(chunk.end..chunk.end + 2).is_none() {
            return Ok(None);
        }
        body.extend_from_slice(&bytes[chunk.clone()]);
        at = chunk.end + 2;
        if size == 0 {
            return Ok(Some((body, at)));
        }
    }
}

fn head(bytes: &[u8]) -> Option<(u16, Vec<(String, String)>)> {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split_whitespace().nth(1)?.parse().ok()?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Some((status, headers))
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str, ended: bool) -> io::Result<Option<Response>> {
        take(&mut text.as_bytes().to_vec(), false, ended)
    }

    #[test]
    fn reads_status_headers_and_a_body_up_to_the_end() {
        let text = "HTTP/1.1 404 Not Found\r\nContent-Type: text/plain\r\n\r\nno";
        assert_eq!(whole(text, false).unwrap(), None);
        let response = whole(text, true).unwrap().unwrap();
        assert_eq!((response.status, response.text()), (404, "no"));
        assert_eq!(response.header("content-type"), Some("text/plain"));
    }

    #[test]
    fn joins_chunks() {
        let text = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\n\r\n";
        assert_eq!(whole(text, false).unwrap().unwrap().text(), "abcd");
        for cut in 0..text.len() {
            assert_eq!(whole(&text[..cut], false).unwrap(), None, "{cut}");
            assert!(whole(&text[..cut], true).is_err(), "{cut}");
        }
    }

    #[test]
    fn refuses_what_is_cut_short_or_not_http() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(whole(text, false).unwrap().unwrap().text(), "ok");
        assert!(whole(&text[..text.len() - 1], true).is_err() && whole("HTTP/1.1 200", true).is_err());
        assert!(whole("SSH-2.0\r\n\r\n", false).is_err());
        assert!(whole("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", false).is_err());
        assert!(whole(&"x".repeat(MAX_HEAD + 1), false).is_err());
    }

    #[test]
    fn leaves_what_follows_and_skips_interim_responses() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nConnection: close\r\n\r\nHTTP/1.1 2";
        let mut bytes = text.as_bytes().to_vec();
        let response = take(&mut bytes, false, false).unwrap().unwrap();
        assert!(response.status == 204 && response.is_last());
        assert_eq!(bytes, b"HTTP/1.1 2");
    }

    #[test]
    fn ends_a_response_to_head_after_its_headers() {
        let mut bytes = b"HTTP/1.1 405 No\r\ncontent-length: 9\r\nallow: GET\r\nAllow: PUT\r\n\r\n".to_vec();
        let response = take(&mut bytes, true, false).unwrap().unwrap();
        assert_eq!((response.status, response.header_values("allow")), (405, vec!["GET", "PUT"]));
        assert!(bytes.is_empty());
    }
}
