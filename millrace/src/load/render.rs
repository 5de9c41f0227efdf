//! The requests of a load, rendered without formatting machinery.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Uri};
use http_body_util::Full;

use super::generator::{Event, Shape};
use crate::client::{Request, Target};

/// Renders the requests of a load.
#[derive(Debug, Clone)]
pub(crate) struct Renderer {
    /// The command service.
    pub(crate) target: Target,
    run: String,
    ids: bool,
}

impl Renderer {
    /// For a run's users and a command service; with an id for every event, or none.
    pub(crate) fn new(run: &str, target: &Target, ids: bool) -> Self {
        Self { target: target.clone(), run: run.to_owned(), ids }
    }

    /// The POST of events, as a batch or of one alone.
    pub(crate) fn request(&self, shape: &Shape, batch: bool, numbers: &[u64]) -> Request {
        let (path, body) = match *numbers {
            [number] if !batch => (self.single(number, shape.event(number)), Vec::new()),
            _ => (b"/analytics/batch".to_vec(), self.batch(shape, numbers)),
        };
        let uri =
            Uri::from_maybe_shared(Bytes::from(path)).expect("digits, and a name that the command line validated");
        let mut request = Request::new(Full::new(body.into()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        if numbers.len() != 1 || batch {
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        }
        request
    }

    /// The path and query of one event's request.
    fn single(&self, number: u64, event: Event) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        out.extend_from_slice(b"/analytics?timestamp=");
        put_number(&mut out, event.timestamp_ms);
        out.extend_from_slice(b"&user=");
        self.put_name(&mut out, u64::from(event.user));
        out.extend_from_slice(if event.click { b"&click" } else { b"&impression" });
        if self.ids {
            out.extend_from_slice(b"&event_id=");
            self.put_name(&mut out, number);
        }
        out
    }

    /// The body of a batch.
    fn batch(&self, shape: &Shape, numbers: &[u64]) -> Vec<u8> {
        let mut body = Vec::with_capacity(128 * numbers.len());
        for &number in numbers {
            let event = shape.event(number);
            body.extend_from_slice(b"{\"timestamp\":");
            put_number(&mut body, event.timestamp_ms);
            body.extend_from_slice(b",\"user\":\"");
            self.put_name(&mut body, u64::from(event.user));
            if self.ids {
                body.extend_from_slice(b"\",\"event_id\":\"");
                self.put_name(&mut body, number);
            }
            body.extend_from_slice(if event.click {
                b"\",\"event\":\"click\"}\n".as_slice()
            } else {
                b"\",\"event\":\"impression\"}\n"
            });
        }
        body
    }

    /// The name of a user, or the id of an event. Both look alike, since the processor compares the ids of one user only.
    fn put_name(&self, out: &mut Vec<u8>, number: u64) {
        out.extend_from_slice(self.run.as_bytes());
        out.push(b'-');
        put_number(out, number);
    }
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

#[cfg(test)]
mod tests {
    use super::super::generator::Times;
    use super::*;

    fn target() -> Target {
        "http://localhost:8081".parse().unwrap()
    }

    fn shape() -> Shape {
        let times = Times::Even { hours: 1, late: 0 };
        Shape { seed: 1, events: 3, users: 10, clicks: 5_000, times, rate: None, now_ms: 3_600_000 }
    }

    #[test]
    fn single_events_are_query_strings() {
        let renderer = Renderer::new("r1", &target(), false);
        let event = Event { timestamp_ms: 1_763_712_000_000, user: 0, click: true };
        assert_eq!(renderer.single(7, event), b"/analytics?timestamp=1763712000000&user=r1-0&click");
        let renderer = Renderer { ids: true, ..renderer };
        assert_eq!(renderer.single(7, event), b"/analytics?timestamp=1763712000000&user=r1-0&click&event_id=r1-7");
        let request = renderer.request(&shape(), false, &[2]);
        assert_eq!((request.method(), request.uri().path()), (&Method::POST, "/analytics"));
        assert!(request.headers().is_empty());
    }

    #[test]
    fn batches_are_ndjson() {
        let (shape, renderer) = (shape(), Renderer::new("r1", &target(), false));
        let body = String::from_utf8(renderer.batch(&shape, &[0, 1, 2])).unwrap();
        for (number, line) in body.lines().enumerate() {
            let event = shape.event(number as u64);
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(json["timestamp"], 3_600_000);
            assert_eq!(json["user"], format!("r1-{}", event.user));
            assert_eq!(json["event"], if event.click { "click" } else { "impression" });
            assert!(json.get("event_id").is_none());
        }
        let renderer = Renderer { ids: true, ..renderer };
        let json: serde_json::Value = serde_json::from_slice(&renderer.batch(&shape, &[2])).unwrap();
        assert_eq!((&json["event_id"], &json["timestamp"]), (&"r1-2".into(), &3_600_000.into()));
        let request = renderer.request(&shape, true, &[2]);
        assert_eq!(
            (request.uri().path(), request.headers()[CONTENT_TYPE].as_bytes()),
            ("/analytics/batch", &b"application/x-ndjson"[..])
        );
    }

    #[test]
    fn numbers_are_decimal() {
        for number in [0, 9, 10, 12_345, u64::MAX] {
            let mut out = Vec::new();
            put_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
