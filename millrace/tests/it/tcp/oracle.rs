//! What a journal must hold. It reads the files by itself and shares no code with the product.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use millrace_testkit::wait_until;

use super::client::{Client, Fate};

/// A line of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) client: String,
    pub(crate) seq: u64,
    pub(crate) payload: Vec<u8>,
}

/// The lines of all segments, in order. Bytes behind the last LF are not durable yet.
pub(crate) fn journal(directory: &Path) -> Vec<Line> {
    let Ok(files) = fs::read_dir(directory) else { return Vec::new() };
    let mut segments: Vec<_> = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "log") && !path.is_symlink())
        .collect();
    segments.sort();
    let bytes: Vec<u8> = segments.iter().flat_map(|path| fs::read(path).unwrap_or_default()).collect();
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(&[][..], |end| &bytes[..end]);
    whole.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(parse).collect()
}

fn parse(line: &[u8]) -> Line {
    let mut words = line.splitn(5, |&byte| byte == b' ');
    let mut text = || String::from_utf8(words.next().unwrap_or_default().to_vec()).unwrap();
    let (time, client, seq, crc) = (text(), text(), text(), text());
    assert!(time.len() == 27 && time.ends_with('Z'), "{time}");
    let escaped = words.next().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(line)));
    let (mut payload, mut at) = (Vec::new(), 0);
    while at < escaped.len() {
        let (byte, len) = match (escaped[at], escaped.get(at + 1)) {
            (b'\\', Some(b'n')) => (b'\n', 2),
            (b'\\', Some(b'r')) => (b'\r', 2),
            (b'\\', Some(b'\\')) => (b'\\', 2),
            (b'\\', Some(b'x')) => {
                let digits = std::str::from_utf8(&escaped[at + 2..at + 4]).unwrap();
                (u8::from_str_radix(digits, 16).unwrap(), 4)
            }
            (b'\\', _) => panic!("{}", String::from_utf8_lossy(line)),
            (byte, _) => (byte, 1),
        };
        payload.push(byte);
        at += len;
    }
    assert_eq!(crc, format!("{:08x}", crc32c(&payload)), "{}", String::from_utf8_lossy(line));
    Line { client, seq: seq.parse().unwrap(), payload }
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

/// What is wrong with a journal: each acknowledged message must stand there once, the others at most once, refused ones
/// not, those of a client by rising number, and nothing else.
pub(crate) fn mistakes(lines: &[Line], clients: &[(Client, Vec<Fate>)]) -> Vec<String> {
    let mut mistakes = Vec::new();
    let mut by_client: HashMap<&str, Vec<&Line>> = HashMap::new();
    for line in lines {
        by_client.entry(&line.client).or_default().push(line);
    }
    for (client, fates) in clients {
        let lines = by_client.remove(client.id.as_str()).unwrap_or_default();
        if !lines.is_sorted_by(|a, b| a.seq < b.seq) {
            let at = lines.windows(2).find(|two| two[0].seq >= two[1].seq).unwrap();
            mistakes.push(format!("{}: {} stands before {}", client.id, at[0].seq, at[1].seq));
        }
        let mut counts = vec![0; fates.len()];
        for line in lines {
            match usize::try_from(line.seq).ok().and_then(|seq| client.messages.get(seq.wrapping_sub(1))) {
                Some(message) if *message == line.payload => counts[usize::try_from(line.seq).unwrap() - 1] += 1,
                _ => mistakes.push(format!("{} {} is not what was sent", client.id, line.seq)),
            }
        }
        for (at, (fate, count)) in fates.iter().zip(counts).enumerate() {
            let right = match fate {
                Fate::Acknowledged => count == 1,
                Fate::Refused => count == 0,
                Fate::Unknown => count <= 1,
            };
            if !right {
                mistakes.push(format!("{} {}: {fate:?}, {count} times in the journal", client.id, at + 1));
            }
        }
    }
    mistakes.extend(by_client.into_keys().map(|client| format!("nobody is {client}")));
    mistakes.truncate(20);
    mistakes
}

/// Waits until the journal is right.
pub(crate) fn assert_right(directory: &Path, clients: &[(Client, Vec<Fate>)], within: Duration) {
    let _ = wait_until(within, || mistakes(&journal(directory), clients).is_empty());
    let found = mistakes(&journal(directory), clients);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn the_oracle_sees_every_kind_of_mistake() {
    let client = Client { id: "a".into(), epoch: None, messages: vec![b"x".to_vec(), b"y".to_vec(), b"z".to_vec()] };
    let line = |seq: u64, payload: &[u8]| Line { client: "a".into(), seq, payload: payload.to_vec() };
    let fates = vec![Fate::Acknowledged, Fate::Refused, Fate::Unknown];
    let found = |lines: &[Line]| mistakes(lines, &[(client.clone(), fates.clone())]).len();
    assert_eq!(found(&[line(1, b"x")]), 0);
    assert_eq!(found(&[line(1, b"x"), line(3, b"z")]), 0);
    assert_eq!(found(&[]), 1, "lost");
    assert_eq!(found(&[line(1, b"x"), line(1, b"x")]), 2, "twice, and not in order");
    assert_eq!(found(&[line(1, b"x"), line(2, b"y")]), 1, "refused");
    assert_eq!(found(&[line(3, b"z"), line(1, b"x")]), 1, "out of order");
    assert_eq!(found(&[line(1, b"y")]), 2, "other bytes");
    assert_eq!(found(&[line(1, b"x"), line(9, b"x")]), 1, "never sent");
    assert_eq!(parse(b"2026-11-30T08:15:00.123456Z a 7 9a71bb4c hello"), line(7, b"hello"));
}
