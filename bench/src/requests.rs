//! Requests as bytes, rendered before they are measured.

use std::net::SocketAddr;

use crate::clock::HOUR_MS;
use crate::preload::Random;

/// The number of different requests; a load repeats them.
const RENDERED: usize = 8_192;

/// `POST /analytics` of one event.
pub(crate) fn post(to: SocketAddr, timestamp_ms: u64, user: &str, kind: &str) -> Vec<u8> {
    let target = format!("/analytics?timestamp={timestamp_ms}&user={user}&{kind}");
    format!("POST {target} HTTP/1.1\r\nhost: {to}\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

/// `GET /analytics` of one hour.
pub(crate) fn get(to: SocketAddr, timestamp_ms: u64) -> Vec<u8> {
    format!("GET /analytics?timestamp={timestamp_ms} HTTP/1.1\r\nhost: {to}\r\n\r\n").into_bytes()
}

/// Any request with a body, which may be empty.
pub(crate) fn with_body(method: &str, to: SocketAddr, target: &str, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!("{method} {target} HTTP/1.1\r\nhost: {to}\r\ncontent-type: {content_type}\r\n");
    format!("{head}content-length: {length}\r\n\r\n{body}").into_bytes()
}

/// Posts of 100,000 users, clicks and impressions, as `post.lua` has them.
pub(crate) fn posts(to: SocketAddr, timestamp_ms: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new();
    let one = |_| {
        let kind = if random.below(2) == 0 { "click" } else { "impression" };
        post(to, timestamp_ms, &format!("user-{}", random.below(100_000)), kind)
    };
    (0..RENDERED).map(one).collect()
}

/// Reads of hours drawn at random from spans of hours before now, each span with its share of a thousand.
pub(crate) fn gets(to: SocketAddr, now_ms: u64, spans: &[(u64, std::ops::RangeInclusive<u64>)]) -> Vec<Vec<u8>> {
    let mut random = Random::new();
    let one = |_| {
        let mut draw = random.below(spans.iter().map(|(share, _)| share).sum());
        let (_, span) = spans
            .iter()
            .find(|(share, _)| draw.checked_sub(*share).map(|rest| draw = rest).is_none())
            .expect("the draw is below the sum of the shares");
        let back = span.start() + random.below(span.end() - span.start() + 1);
        get(to, now_ms.saturating_sub(back * HOUR_MS))
    };
    (0..RENDERED).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_their_shares() {
        let to = "127.0.0.1:1".parse().unwrap();
        let now = 3_000 * HOUR_MS;
        let rendered = gets(to, now, &[(950, 0..=0), (25, 1..=23), (25, 30..=2_000)]);
        let hour = |request: &[u8]| {
            let text = std::str::from_utf8(request).unwrap();
            let at = text.strip_prefix("GET /analytics?timestamp=").unwrap();
            3_000 - at.split(' ').next().unwrap().parse::<u64>().unwrap() / HOUR_MS
        };
        let count = |span: std::ops::RangeInclusive<u64>| {
            rendered.iter().filter(|request| span.contains(&hour(request))).count()
        };
        assert_eq!(count(0..=0) + count(1..=23) + count(30..=2_000), RENDERED);
        for span in [count(1..=23), count(30..=2_000)] {
            assert!((150..260).contains(&span), "{span}");
        }
    }
}
