//! Requests as bytes: rendered into a buffer that is used again, without formatting machinery.

use super::generator::{Event, Shape};

/// Renders the requests of a load.
#[derive(Debug, Clone)]
pub(crate) struct Renderer {
    /// Where the requests go, `host:port`.
    pub(crate) authority: String,
    run: String,
    ids: bool,
    single_tail: Vec<u8>,
    batch_head: Vec<u8>,
}

impl Renderer {
    /// For a run's users and the command service's `host:port`; with an id for every event, or none.
    pub(crate) fn new(run: &str, authority: &str, ids: bool) -> Self {
        Self {
            authority: authority.to_owned(),
            run: run.to_owned(),
            ids,
            single_tail: format!(" HTTP/1.1\r\nhost: {authority}\r\ncontent-length: 0\r\n\r\n").into_bytes(),
            batch_head: format!(
                "POST /analytics/batch HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/x-ndjson\r\ncontent-length: "
            )
            .into_bytes(),
        }
    }

    fn single(&self, number: u64, event: Event, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(b"POST /analytics?timestamp=");
        put_number(out, event.timestamp_ms);
        out.extend_from_slice(b"&user=");
        self.put_name(out, u64::from(event.user));
        out.extend_from_slice(if event.click { b"&click" } else { b"&impression" });
        if self.ids {
            out.extend_from_slice(b"&event_id=");
            self.put_name(out, number);
        }
        out.extend_from_slice(&self.single_tail);
    }

    /// Replaces `out` by the POST of events, as a batch or of one alone; `body` is scratch space.
    pub(crate) fn events(&self, shape: &Shape, batch: bool, numbers: &[u64], body: &mut Vec<u8>, out: &mut Vec<u8>) {
        match *numbers {
            [number] if !batch => self.single(number, shape.event(number), out),
            _ => self.batch(shape, numbers, body, out),
        }
    }

    fn batch(&self, shape: &Shape, numbers: &[u64], body: &mut Vec<u8>, out: &mut Vec<u8>) {
        body.clear();
        for &number in numbers {
            let event = shape.event(number);
            body.extend_from_slice(b"{\"timestamp\":");
            put_number(body, event.timestamp_ms);
            body.extend_from_slice(b",\"user\":\"");
            self.put_name(body, u64::from(event.user));
            if self.ids {
                body.extend_from_slice(b"\",\"event_id\":\"");
                self.put_name(body, number);
            }
            body.extend_from_slice(if event.click {
                b"\",\"event\":\"click\"}\n".as_slice()
            } else {
                b"\",\"event\":\"impression\"}\n"
            });
        }
        out.clear();
        out.extend_from_slice(&self.batch_head);
        put_number(out, body.len() as u64);
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(body);
    }

    /// A user's name, or an event's id: the processor looks at ids of one user only, so the two may look alike.
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
    use super::*;

    #[test]
    fn requests_read_as_the_api_wants_them() {
        let renderer = Renderer::new("r1", "localhost:8081", false);
        let mut out = b"left over".to_vec();
        let event = Event { timestamp_ms: 1_763_712_000_000, user: 0, click: true };
        renderer.single(7, event, &mut out);
        assert_eq!(
            String::from_utf8(out.clone()).unwrap(),
            "POST /analytics?timestamp=1763712000000&user=r1-0&click HTTP/1.1\r\nhost: localhost:8081\r\ncontent-length: 0\r\n\r\n"
        );
        let shape = Shape { seed: 1, events: 3, users: 10, hours: 1, late: 0, now_ms: 3_600_000 };
        renderer.batch(&shape, &[0, 1, 2], &mut Vec::new(), &mut out);
        let text = String::from_utf8(out.clone()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        for (number, line) in body.lines().enumerate() {
            let event = shape.event(number as u64);
            let json: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(json["timestamp"], 3_600_000);
            assert_eq!(json["user"], format!("r1-{}", event.user));
            assert_eq!(json["event"], if event.click { "click" } else { "impression" });
            assert!(json.get("event_id").is_none());
        }
        let renderer = Renderer { ids: true, ..renderer };
        renderer.single(7, event, &mut out);
        assert!(out.starts_with(b"POST /analytics?timestamp=1763712000000&user=r1-0&click&event_id=r1-7 HTTP/1.1\r\n"));
        let mut body = Vec::new();
        renderer.batch(&shape, &[2], &mut body, &mut out);
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&json["event_id"], &json["timestamp"]), (&"r1-2".into(), &3_600_000.into()));
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
