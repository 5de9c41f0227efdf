//! Batches in each format: what reaches the log, and what is refused, an item alone or the body as a whole.

use millrace_base::Size;
use millrace_command::Config;
use millrace_contracts::Kind;
use millrace_testkit::{Response, request};

use crate::accepted::event_at;
use crate::codings::gzip as gzipped;
use crate::harness::{NOW, Server, batch_request};

const CSV: &str = "text/csv";
const CBOR: &str = "application/cbor";
const EVENT: &str = "application/cloudevents+json";
const EVENTS: &str = "application/cloudevents-batch+json";
const SERVED: &str = "application/x-ndjson, application/json, text/csv, application/cbor, \
                      application/cloudevents-batch+json, application/cloudevents+json";

type Row = (&'static str, i64, Kind, Option<&'static str>);

/// The events of a response, or the code and field of what was refused.
async fn outcomes(server: &Server, answer: &Response) -> Vec<Result<(String, i64, Kind, Option<String>), String>> {
    let mut outcomes = Vec::new();
    for result in answer.json().as_array().unwrap_or_else(|| panic!("{answer:?}")) {
        let Some(position) = result["position"].as_str().map(str::to_owned) else {
            let field = result["field"].as_str().unwrap_or_default();
            outcomes.push(Err(format!("{} {field}", result["code"].as_str().unwrap())));
            continue;
        };
        let log = server.log.clone();
        let event = tokio::task::spawn_blocking(move || event_at(&log, &position)).await.unwrap();
        outcomes.push(Ok((event.user, event.timestamp_ms, event.kind, event.event_id)));
    }
    outcomes
}

async fn expect(server: &Server, answer: &Response, expected: &[Result<Row, &str>]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|row| match row {
            Ok((user, at, kind, id)) => Ok(((*user).to_owned(), *at, *kind, id.map(str::to_owned))),
            Err(refusal) => Err((*refusal).to_owned()),
        })
        .collect();
    assert_eq!(outcomes(server, answer).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_csv_is_an_item() {
    let server = Server::start().await;
    let body = "\u{feff}user,timestamp,event_id,event\r\n\
                ann,5,e1,click\r\n\r\n\
                \"a \"\"b\"\", c\",6,,impression\r\n\
                bob,seconds,,click\r\n\
                ,7,,click\r\n\
                bob,,,click\r\n\
                \"a\nbob,7,,click\n\",7,,click\r\n\
                bob,7,click\r\n\
                n\u{e4}me,8,,click";
    let answer = server.batch("text/csv; header=present; charset=UTF-8", body).await;
    assert_eq!(answer.status, 207, "{answer:?}");
    let expected = [
        Ok(("ann", 5, Kind::Click, Some("e1"))),
        Ok(("a \"b\", c", 6, Kind::Impression, None)),
        Err("invalid-field timestamp"),
        Err("missing-field user"),
        Err("missing-field timestamp"),
        Err("invalid-field user"),
        Err("malformed-body "),
        Ok(("n\u{e4}me", 8, Kind::Click, None)),
    ];
    expect(&server, &answer, &expected).await;
    let answer = server.batch(CSV, b"timestamp,user,event\n1,\xff,click\n1,a,click\n").await;
    expect(&server, &answer, &[Err("invalid-encoding user"), Ok(("a", 1, Kind::Click, None))]).await;
    let (quoted, plain) = (format!("\"{}\n2,b,click\n\"\"\"", "x,".repeat(10_000)), "x".repeat(20_000));
    let long = format!("timestamp,user,event\n1,a,click\n2,{quoted},click\n3,{plain},click\n4,d,click\n");
    let answer = server.batch(CSV, long).await;
    let expected =
        [Ok(("a", 1, Kind::Click, None)), Err("too-large "), Err("too-large "), Ok(("d", 4, Kind::Click, None))];
    expect(&server, &answer, &expected).await;
    let answer = server.batch(CSV, "timestamp,user,event\n").await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"[]\n"[..]));
    let key = "Content-Type: text/csv\r\nIdempotency-Key: k\r\n";
    let answer = server.send(batch_request(key, "timestamp,user,event\n1,a,click\n1,b,click\n")).await;
    let expected = [Ok(("a", 1, Kind::Click, Some("k/0"))), Ok(("b", 1, Kind::Click, Some("k/1")))];
    expect(&server, &answer, &expected).await;
}

/// A text of CBOR.
fn text(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap().to_be_bytes();
    [&[0x79], &length[..], text.as_bytes()].concat()
}

fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let head = vec![0xa0 | u8::try_from(pairs.len()).unwrap()];
    pairs.iter().fold(head, |map, (key, value)| [map, text(key), value.clone()].concat())
}

fn array(items: &[Vec<u8>]) -> Vec<u8> {
    [vec![0x80 | u8::try_from(items.len()).unwrap()], items.concat()].concat()
}

fn number(number: u64) -> Vec<u8> {
    [&[0x1b], &number.to_be_bytes()[..]].concat()
}

fn item(timestamp: Vec<u8>, user: Vec<u8>) -> Vec<u8> {
    map(&[("timestamp", timestamp), ("user", user), ("event", text("click"))])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_map_of_cbor_is_an_item() {
    let server = Server::start().await;
    let good = |user| item(number(5), text(user));
    // Lengths that are not definite, a text in pieces, tags, and a short number.
    let streamed = [
        vec![0xd9, 0xd9, 0xf7, 0x9f, 0xbf],
        [text("event"), text("click"), text("user"), vec![0x7f], text("a"), text("nn"), vec![0xff]].concat(),
        [text("timestamp"), vec![0xc1, 0x05], text("event_id"), text("e1"), vec![0xff, 0xff]].concat(),
    ];
    let answer = server.batch(CBOR, streamed.concat()).await;
    expect(&server, &answer, &[Ok(("ann", 5, Kind::Click, Some("e1")))]).await;
    let nested = [vec![0x81; 13], vec![0x00]].concat();
    let items = [
        good("n\u{e4}me"),
        item(number(u64::MAX), text("a")),
        item(vec![0x20], text("a")),
        item(text("5"), text("a")),
        item(vec![0xf9, 0x45, 0x00], text("a")),
        item(number(5), vec![0x41, b'a']),
        item(number(5), nested),
        item(number(5), map(&[("x", vec![0xc1, 0xf6])])),
        map(&[("timestamp", number(5)), ("event", text("click"))]),
        map(&[("user", text("a")), ("user", text("a"))]),
        map(&[("x", number(1))]),
        [vec![0xa1, 0x01], text("a")].concat(),
        number(7),
        good("b"),
    ];
    let answer = server.batch(CBOR, array(&items)).await;
    let expected = [
        Ok(("n\u{e4}me", 5, Kind::Click, None)),
        Err("invalid-field timestamp"),
        Err("invalid-field timestamp"),
        Err("invalid-field timestamp"),
        Err("invalid-field timestamp"),
        Err("invalid-field user"),
        Err("invalid-field user"),
        Err("invalid-field user"),
        Err("missing-field user"),
        Err("duplicate-field user"),
        Err("unknown-field x"),
        Err("unknown-field "),
        Err("malformed-body "),
        Ok(("b", 5, Kind::Click, None)),
    ];
    expect(&server, &answer, &expected).await;
}

const DATA: &str = r#"{"user":"ann"}"#;

fn cloud_event(attributes: &str, data: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"7","source":"/shop","type":"com.example.click"{attributes},"data":{data}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_event_is_an_item() {
    let server = Server::start().await;
    let all = r#"{"user":"ann","timestamp":5,"event":"impression","event_id":"own"}"#;
    let rows = [
        (cloud_event("", DATA), Ok(("ann", NOW, Kind::Click, Some("/shop 7")))),
        (
            cloud_event(r#","time":"1970-01-01T01:00:00.005+01:00","subject":"s","traceparent":"00-1","n":1"#, DATA),
            Ok(("ann", 5, Kind::Click, Some("/shop 7"))),
        ),
        (
            cloud_event(r#","datacontenttype":"application/json; charset=utf-8""#, all),
            Ok(("ann", 5, Kind::Impression, Some("own"))),
        ),
        (cloud_event(r#","datacontenttype":null,"time":null"#, all), Ok(("ann", 5, Kind::Impression, Some("own")))),
        (cloud_event(r#","datacontenttype":"text/xml""#, DATA), Err("invalid-field datacontenttype")),
        (cloud_event(r#","data_base64":"e30=""#, DATA), Err("invalid-field data_base64")),
        (cloud_event(r#","id":"7""#, DATA), Err("duplicate-field id")),
        (cloud_event(r#","time":"today""#, DATA), Err("invalid-field time")),
        (cloud_event(r#","time":5"#, DATA), Err("invalid-field time")),
        (cloud_event(r#","time":"1969-12-31T23:59:59Z""#, DATA), Err("invalid-field timestamp")),
        (cloud_event("", "{}"), Err("missing-field user")),
        (cloud_event("", r#"{"user":"a","x":1}"#), Err("unknown-field x")),
        (cloud_event("", "7"), Err("malformed-body ")),
        (cloud_event("", DATA).replace("1.0", "0.3"), Err("invalid-field specversion")),
        (cloud_event("", DATA).replace("com.example.click", "com.example.view"), Err("invalid-field event")),
        (cloud_event("", DATA).replace("com.example.click", ""), Err("invalid-field type")),
        (cloud_event("", DATA).replace("/shop", "a b"), Err("invalid-field source")),
        (cloud_event("", DATA).replace("/shop", &"s".repeat(127)), Err("invalid-field id")),
        (r#"{"specversion":"1.0","id":"7","source":"/shop","type":"click"}"#.into(), Err("missing-field data")),
        (r#"{"specversion":"1.0","source":"/shop","type":"click","data":{}}"#.into(), Err("missing-field id")),
        ("{}".into(), Err("missing-field data")),
    ];
    let bodies: Vec<&str> = rows.iter().map(|(body, _)| &**body).collect();
    let expected: Vec<_> = rows.iter().map(|(_, expected)| *expected).collect();
    let answer = server.batch(EVENTS, format!("[{}]", bodies.join(","))).await;
    assert_eq!(answer.status, 207);
    expect(&server, &answer, &expected).await;
    for (body, expected) in &rows {
        // One CloudEvent alone is a batch of one, and a single event.
        let answer = server.batch(EVENT, body).await;
        expect(&server, &answer, &[*expected]).await;
        let answer = server.post_body("", EVENT, body).await;
        assert_eq!(answer.status == 204, expected.is_ok(), "{body}: {answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_event_may_be_in_headers() {
    let server = Server::start().await;
    let fields = [
        ("ce-specversion", "1.0"),
        ("ce-id", "caf%C3%A9"),
        ("ce-source", "\"/shop\""),
        ("ce-type", "com.example.impression"),
        ("ce-time", "1970-01-01T00:00:00.005Z"),
        ("ce-subject", "ignored"),
        ("content-type", "application/json"),
    ];
    let row = Ok(("ann", 5, Kind::Impression, Some("/shop caf\u{e9}")));
    let answer = server.send(request("POST", "/analytics/batch", &fields, DATA)).await;
    expect(&server, &answer, &[row]).await;
    let answer = server.send(request("POST", "/analytics", &fields, DATA)).await;
    assert_eq!(answer.status, 204, "{answer:?}");
    let duplicate = [&fields[..], &[("ce-id", "8")]].concat();
    let with = |name: &'static str, value: &'static str| {
        let replaced = fields.map(|(field, old)| (field, if field == name { value } else { old }));
        replaced.to_vec()
    };
    for (fields, status, code, field) in [
        (duplicate, 400, "duplicate-field", "id"),
        (with("ce-specversion", "2.0"), 400, "invalid-field", "specversion"),
        (with("ce-id", "%zz"), 400, "invalid-encoding", "id"),
        (with("ce-source", ""), 400, "invalid-field", "source"),
        (with("ce-time", "5"), 400, "invalid-field", "time"),
        (with("content-type", "text/csv"), 415, "unsupported-media-type", "content-type"),
        (fields[..1].iter().chain(&fields[6..]).copied().collect(), 400, "missing-field", "id"),
    ] {
        for path in ["/analytics", "/analytics/batch"] {
            let answer = server.send(request("POST", path, &fields, DATA)).await;
            let document = answer.json();
            let problem = document.get(0).unwrap_or(&document);
            let got = (answer.status, problem["code"].as_str().unwrap(), problem["field"].as_str().unwrap());
            assert_eq!(got, (status, code, field), "{path} {fields:?}: {answer:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_bodies_are_refused_as_a_whole() {
    let server = Server::start().await;
    let header = "timestamp,user,event\n";
    let many_records = format!("{header}{}", "1,a,click\n".repeat(1_001));
    let long_record = format!("{header}1,a,click\n1,\"{}", "x\n".repeat(9_000));
    let good = item(number(5), text("a"));
    let many_maps = [vec![0x9f], good.repeat(1_001), vec![0xff]].concat();
    let many_events = format!("[{}]", vec![cloud_event("", DATA); 1_001].join(","));
    // Lengths of 2^62 with nothing behind them, and nesting without end.
    let claims = |major: u8| [vec![major | 0x1b], vec![0x3f], vec![0xff; 7]].concat();
    let [long_array, long_map] = [0x80, 0xa0].map(claims);
    let [long_text, long_bytes] = [0x60, 0x40].map(|major| [vec![0x81], item(number(5), claims(major))].concat());
    let deep = [vec![0x81; 100_000], vec![0x00]].concat();
    #[rustfmt::skip]
    let rows: &[(&str, &[u8], u16, &str, &str)] = &[
        (CSV, b"", 400, "malformed-body", ""),
        (CSV, b"\n1,a,click\n", 400, "malformed-body", ""),
        (CSV, b"1,a,click\n", 400, "unknown-field", "1"),
        (CSV, b"timestamp,user\n", 400, "missing-field", "event"),
        (CSV, b"timestamp,user,user,event\n", 400, "duplicate-field", "user"),
        (CSV, b"timestamp,user,event,Event\n", 400, "unknown-field", "Event"),
        (CSV, b"timestamp;user;event\n", 400, "unknown-field", "timestamp;user;event"),
        (CSV, b"timestamp,user,event\n1,a,click\n1,\"b,click\n", 400, "malformed-body", ""),
        (CSV, long_record.as_bytes(), 400, "malformed-body", ""),
        (CSV, many_records.as_bytes(), 413, "too-many-items", ""),
        (CBOR, b"", 400, "malformed-body", ""),
        (CBOR, b"\xff", 400, "malformed-body", ""),
        (CBOR, b"[{}]", 400, "malformed-body", ""),
        (CBOR, &good, 400, "malformed-body", ""),
        (CBOR, &array(std::slice::from_ref(&good))[..20], 400, "malformed-body", ""),
        (CBOR, &[array(std::slice::from_ref(&good)), vec![0]].concat(), 400, "malformed-body", ""),
        (CBOR, &[0x81, 0x1c], 400, "malformed-body", ""),
        (CBOR, &[0x81, 0xff], 400, "malformed-body", ""),
        (CBOR, &[0x9f, 0xbf, 0x61, b'a', 0xff, 0xff], 400, "malformed-body", ""),
        (CBOR, &[0x81, 0xa1, 0x61, 0xff, 0x00], 400, "malformed-body", ""),
        (CBOR, &long_array, 400, "malformed-body", ""),
        (CBOR, &[vec![0x81], long_map].concat(), 400, "malformed-body", ""),
        (CBOR, &long_text, 400, "malformed-body", ""),
        (CBOR, &long_bytes, 400, "malformed-body", ""),
        (CBOR, &deep, 400, "malformed-body", ""),
        (CBOR, &[vec![0x81], item(number(5), [vec![0xc1; 100_000], vec![0x00]].concat())].concat(), 400, "invalid-field", "user"),
        (CBOR, &many_maps, 413, "too-many-items", ""),
        (EVENTS, b"{}", 400, "malformed-body", ""),
        (EVENTS, many_events.as_bytes(), 413, "too-many-items", ""),
        (EVENT, b"[]", 400, "malformed-body", ""),
        (EVENT, "\u{feff}{}".as_bytes(), 400, "malformed-body", ""),
        ("application/cbor-seq", &good, 415, "unsupported-media-type", "content-type"),
        ("text/plain", b"x", 415, "unsupported-media-type", "content-type"),
    ];
    for &(media, body, status, code, field) in rows {
        let answer = server.batch(media, body).await;
        let document = answer.json();
        let problem = document.get(0).unwrap_or(&document);
        let got = (
            answer.status,
            problem["code"].as_str().unwrap_or_default(),
            problem["field"].as_str().unwrap_or_default(),
        );
        let shown = String::from_utf8_lossy(&body[..body.len().min(80)]);
        assert_eq!(got, (status, code, field), "{media} {shown}: {answer:?}");
        assert_eq!(answer.header("accept-post"), (status == 415).then_some(SERVED), "{answer:?}");
    }
    assert_eq!(server.answered("accepted"), 0, "nothing of a refused body counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charset_is_converted() {
    let mut config = Config::default();
    config.limits.max_inflated_bytes = Size::from_mib(1);
    let server = Server::with(config).await;
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
    let line = "{\"timestamp\":5,\"user\":\"n\u{e4}me\",\"event\":\"click\"}\n";
    let latin1: Vec<u8> = line.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
    let csv = b"timestamp,user,event\n5,n\xe4me,click\n";
    let event = cloud_event(r#","time":"1970-01-01T00:00:00.005Z""#, "{\"user\":\"n\u{e4}me\",\"event_id\":\"1\"}");
    for (media, body, id) in [
        ("application/x-ndjson; charset=iso-8859-1", latin1.clone(), None),
        ("application/json; charset=\"UTF-16BE\"", utf16(&format!("[{line}]")), None),
        ("application/json; charset=utf-16", utf16(&format!("\u{feff}[{line}]")), None),
        ("text/csv; charset=windows-1252", csv.to_vec(), None),
        ("application/cloudevents+json; charset=utf-16be", utf16(&event), Some("1")),
        // A param without a meaning: texts of CBOR are UTF-8.
        ("application/cbor; charset=utf-16", array(&[item(number(5), text("n\u{e4}me"))]), None),
    ] {
        let answer = server.batch(media, &body).await;
        expect(&server, &answer, &[Ok(("n\u{e4}me", 5, Kind::Click, id))]).await;
    }
    // 700,000 characters become 1.4 MB: the bound is that of the converted text, and the rest of the memory is free again.
    let padded = [latin1.clone(), vec![0xa0; 700_000]].concat();
    let gzip = "Content-Type: application/x-ndjson; charset=latin1\r\nContent-Encoding: gzip\r\n";
    let rows = [
        (batch_request("Content-Type: application/x-ndjson; charset=latin1\r\n", &padded), 413, "too-large"),
        (batch_request(gzip, gzipped(&padded)), 413, "too-large"),
        (batch_request("Content-Type: application/json; charset=utf-16le\r\n", b"[\0]\0 "), 400, "invalid-encoding"),
        (
            batch_request("Content-Type: application/json; charset=shift_jis\r\n", b"[\"\xff\"]"),
            400,
            "invalid-encoding",
        ),
        (batch_request("Content-Type: text/csv; charset=utf-7\r\n", csv), 415, "unsupported-media-type"),
        (batch_request("Content-Type: text/csv; charset=\"\"\r\n", csv), 415, "unsupported-media-type"),
    ];
    for (request, status, code) in rows {
        let answer = server.send(&request).await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{answer:?}");
    }
    let answer = server.send(batch_request(gzip, gzipped(&latin1))).await;
    expect(&server, &answer, &[Ok(("n\u{e4}me", 5, Kind::Click, None))]).await;
    server.reaches("millrace_http_body_bytes", 0).await;
}
