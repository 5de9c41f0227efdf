//! Content codings of batches: whole or refused.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::{Server, batch_request};

const GZIP: &str = "Content-Type: application/x-ndjson\r\nContent-Encoding: gzip\r\n";
const LINE: &[u8] = b"{\"timestamp\":1,\"user\":\"a\",\"event\":\"click\"}\n";

pub(crate) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// `cat a.gz b.gz` is one gzip file with two members (RFC 1952, 2.2): both count.
#[tokio::test(flavor = "multi_thread")]
async fn every_member_of_a_gzip_body_is_accepted() {
    let server = Server::start().await;
    let body = [gzip(LINE), gzip(&LINE.repeat(2))].concat();
    let response = server.send(batch_request(GZIP, body)).await;
    assert_eq!((response.status, response.json().as_array().unwrap().len()), (200, 3), "{response:?}");
    assert_eq!(server.answered("accepted"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_behind_a_coded_body_are_refused_with_the_whole_body() {
    let server = Server::start().await;
    let (first, second) = (gzip(LINE), gzip(LINE));
    for behind in [&second[..second.len() / 2], &second[..second.len() - 1], LINE] {
        let response = server.send(batch_request(GZIP, [&first, behind].concat())).await;
        assert_eq!((response.status, response.json()["code"].as_str()), (400, Some("malformed-body")), "{response:?}");
    }
    assert_eq!(server.answered("accepted"), 0);
}
