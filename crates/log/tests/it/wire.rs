//! Requests in Kafka's wire format, for what no client does: leaving a transaction open. Numbers are big-endian, a length
//! precedes strings and arrays.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::until;

const PRODUCE: i16 = 0;
const INIT_PRODUCER_ID: i16 = 22;

#[derive(Default)]
pub(crate) struct Request(Vec<u8>);

impl Request {
    pub(crate) fn string(mut self, text: &str) -> Self {
        self.0.extend(i16::try_from(text.len()).unwrap().to_be_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    pub(crate) fn bytes<const N: usize>(mut self, bytes: [u8; N]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Bytes after their length.
    fn block(mut self, bytes: &[u8]) -> Self {
        self.0.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
        self.0.extend(bytes);
        self
    }

    /// Sends the request; returns the response after its header.
    pub(crate) fn send(self, brokers: &str, api: i16, version: i16) -> Vec<u8> {
        let header = Self::default().bytes(api.to_be_bytes()).bytes(version.to_be_bytes()).bytes([0; 4]).string("test");
        let mut broker = TcpStream::connect(brokers).unwrap();
        broker.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let length = u32::try_from(header.0.len() + self.0.len()).unwrap();
        broker.write_all(&[&length.to_be_bytes()[..], &header.0, &self.0].concat()).unwrap();
        let mut length = [0; 4];
        broker.read_exact(&mut length).unwrap();
        let mut response = vec![0; u32::from_be_bytes(length) as usize];
        broker.read_exact(&mut response).unwrap();
        response.split_off(4)
    }
}

/// The id and epoch of a producer with this transactional id, as they are on the wire.
pub(crate) async fn producer_id(brokers: &str, id: &str) -> [u8; 10] {
    let mut producer = [0; 10];
    // There is none while the last transaction ends.
    until("there is a producer id", || {
        let request = Request::default().string(id).bytes(60_000_i32.to_be_bytes());
        let response = request.send(brokers, INIT_PRODUCER_ID, 1);
        producer.copy_from_slice(&response[6..]);
        async move { response[4..6] == [0, 0] }
    })
    .await;
    producer
}

/// The first records of a producer in a transaction.
pub(crate) struct Batch<'a> {
    pub(crate) producer: [u8; 10],
    /// Keys and values.
    pub(crate) records: &'a [(&'a str, &'a [u8])],
}

impl Batch<'_> {
    fn encode(&self) -> Vec<u8> {
        let count = i32::try_from(self.records.len()).unwrap();
        // What the checksum covers: transactional, at the time 0.
        let mut covered = Vec::new();
        covered.extend(0x10_i16.to_be_bytes());
        covered.extend((count - 1).to_be_bytes());
        covered.extend([0; 16]);
        covered.extend(self.producer);
        covered.extend(0_i32.to_be_bytes());
        covered.extend(count.to_be_bytes());
        for (index, (key, value)) in self.records.iter().enumerate() {
            let mut record = vec![0, 0];
            put_varint(&mut record, index);
            for part in [key.as_bytes(), value] {
                put_varint(&mut record, part.len());
                record.extend(part);
            }
            put_varint(&mut record, 0);
            put_varint(&mut covered, record.len());
            covered.extend(record);
        }
        let mut batch = vec![0; 8];
        batch.extend(i32::try_from(covered.len() + 9).unwrap().to_be_bytes());
        batch.extend((-1_i32).to_be_bytes());
        batch.push(2);
        batch.extend(crc32c(&covered).to_be_bytes());
        batch.extend(covered);
        batch
    }
}

fn put_varint(out: &mut Vec<u8>, number: usize) {
    let mut zigzag = number << 1;
    while zigzag > 0x7f {
        out.push(u8::try_from(zigzag & 0x7f).unwrap() | 0x80);
        zigzag >>= 7;
    }
    out.push(u8::try_from(zigzag).unwrap());
}

fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| bit(crc)))
}

/// Appends a batch to partition 0 in a transaction that no coordinator has: nothing ends it. The broker must not verify
/// transactions.
pub(crate) fn leave_records(brokers: &str, id: &str, topic: &str, batch: &Batch<'_>) {
    let request = Request::default().string(id).bytes((-1_i16).to_be_bytes()).bytes(30_000_i32.to_be_bytes());
    let request = request.bytes(1_i32.to_be_bytes()).string(topic).bytes(1_i32.to_be_bytes());
    let request = request.bytes(0_i32.to_be_bytes()).block(&batch.encode());
    let response = request.send(brokers, PRODUCE, 3);
    // One topic with its name, and one partition with its number, before the error.
    let error = 4 + 2 + topic.len() + 4 + 4;
    assert_eq!(response[error..error + 2], [0, 0], "{response:?}");
}
