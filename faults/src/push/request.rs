//! A request of push, as an endpoint reads it.

use std::collections::BTreeMap;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    /// The last segment of its path.
    pub(super) endpoint: String,
    /// Names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: Vec<u8>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The request at the beginning of these bytes and its length, if it is complete.
    pub(super) fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]);
        let mut lines = head.split("\r\n");
        let target = lines.next()?.split(' ').nth(1)?;
        let endpoint = target.rsplit('/').next()?.to_owned();
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let length: usize = headers.get("content-length").map_or(Some(0), |length| length.parse().ok())?;
        let body = bytes.get(end + 4..end + 4 + length)?.to_vec();
        Some((Self { endpoint, headers, body }, end + 4 + length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_once_it_is_complete() {
        let bytes = b"POST /always HTTP/1.1\r\nWebhook-Id: m1\r\ncontent-length: 2\r\n\r\nokPOST";
        let (request, length) = Request::parse(bytes).unwrap();
        assert_eq!(
            (request.endpoint.as_str(), request.header("webhook-id"), &*request.body),
            ("always", "m1", &b"ok"[..])
        );
        assert_eq!(&bytes[length..], b"POST");
        assert!((0..length).all(|cut| Request::parse(&bytes[..cut]).is_none()));
    }
}
