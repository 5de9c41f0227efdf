//! Reads the segments of a journal, in either format, as `docs/tcp.md` describes them.

use std::fs;
use std::path::{Path, PathBuf};

/// A record of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) client: String,
    pub(crate) seq: u64,
    pub(crate) payload: Vec<u8>,
}

/// What a journal holds.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) lines: Vec<Line>,
    /// Segments of text, and framed ones.
    pub(crate) segments: [u64; 2],
}

/// Reads a journal that nobody writes to. A record without an end is left out where it is the last: it is not durable yet.
///
/// # Errors
/// What is no journal.
pub(crate) fn read(directory: &Path) -> Result<Journal, String> {
    let mut journal = Journal::default();
    let paths = segments(directory)?;
    for (at, path) in paths.iter().enumerate() {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let bytes = fs::read(path).map_err(failed)?;
        // It was created, and nothing of it is durable.
        if bytes.is_empty() {
            continue;
        }
        let framed = match fs::read(path.with_extension("idx")).map_err(failed)?.get(..9) {
            Some(b"MRJIDX01t") => false,
            Some(b"MRJIDX01f") => true,
            _ => return Err(format!("{}: its index names no format", path.display())),
        };
        journal.segments[usize::from(framed)] += 1;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let read = record(rest, framed);
            let read = read.map_err(|why| format!("{} at byte {}: {why}", path.display(), bytes.len() - rest.len()))?;
            match read {
                Some((line, length)) => {
                    journal.lines.push(line);
                    rest = &rest[length..];
                }
                None if at + 1 == paths.len() => break,
                None => return Err(format!("{}: its last record does not end", path.display())),
            }
        }
    }
    Ok(journal)
}

/// The segments, the oldest first.
fn segments(directory: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let is_segment = |path: &PathBuf| {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let numbered = stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit());
        numbered && path.extension().is_some_and(|extension| extension == "log")
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_segment).collect();
    paths.sort();
    Ok(paths)
}

/// The record at the start of `input`, and its length; `None` if it does not end.
fn record(input: &[u8], framed: bool) -> Result<Option<(Line, usize)>, String> {
    let Some(end) = input.iter().position(|&byte| byte == b'\n') else { return Ok(None) };
    let no_record = || format!("no record: {:?}", String::from_utf8_lossy(&input[..end.min(200)]));
    let words: Vec<&[u8]> = input[..end].splitn(5, |&byte| byte == b' ').collect();
    let &[time, client, seq, crc, last] = words.as_slice() else { return Err(no_record()) };
    let text = |word| std::str::from_utf8(word).map_err(|_| no_record());
    let (time, client, seq, crc) = (text(time)?, text(client)?, text(seq)?, text(crc)?);
    // `2026-11-30T08:15:00.123456Z`
    if time.len() != 27 || !time.ends_with('Z') {
        return Err(no_record());
    }
    let (payload, length) = if framed {
        let payload_len: usize = text(last)?.parse().map_err(|_| no_record())?;
        let until = end + 1 + payload_len;
        match input.get(until) {
            None => return Ok(None),
            Some(b'\n') => (input[end + 1..until].to_vec(), until + 1),
            Some(_) => return Err(no_record()),
        }
    } else {
        (unescape(last).ok_or_else(no_record)?, end + 1)
    };
    if crc != format!("{:08x}", crc32c(&payload)) {
        return Err(format!("the payload does not match its checksum: {}", no_record()));
    }
    let seq = seq.parse().map_err(|_| no_record())?;
    Ok(Some((Line { client: client.to_owned(), seq, payload }, length)))
}

/// The bytes of an escaped payload.
fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((&byte, behind)) = rest.split_first() {
        let (byte, behind) = match (byte, behind) {
            (b'\\', [b'n', behind @ ..]) => (b'\n', behind),
            (b'\\', [b'r', behind @ ..]) => (b'\r', behind),
            (b'\\', [b'\\', behind @ ..]) => (b'\\', behind),
            (b'\\', [b'x', high, low, behind @ ..]) => {
                let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                ((digit(*high)? << 4) | digit(*low)?, behind)
            }
            (b'\\', _) => return None,
            (byte, behind) => (byte, behind),
        };
        bytes.push(byte);
        rest = behind;
    }
    Some(bytes)
}

/// CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_both_formats_are_read() {
        let line = |payload: &[u8]| Line { client: "a".into(), seq: 7, payload: payload.to_vec() };
        let text = b"2026-11-30T08:15:00.123456Z a 7 9a71bb4c hello\n";
        assert_eq!(record(text, false), Ok(Some((line(b"hello"), text.len()))));
        assert_eq!(record(&text[..20], false), Ok(None));
        let framed = b"2026-11-30T08:15:00.123456Z a 7 9a71bb4c 5\nhello\n";
        assert_eq!(record(framed, true), Ok(Some((line(b"hello"), framed.len()))));
        assert_eq!(record(&framed[..framed.len() - 1], true), Ok(None));
        for bad in ["a 7 9a71bb4c hello\n", "2026-11-30T08:15:00.123456Z a 7 9a71bb4d hello\n"] {
            assert!(record(bad.as_bytes(), false).is_err(), "{bad}");
        }
        assert_eq!(unescape(b"a\\n\\r\\\\\\x00\\xff b"), Some(b"a\n\r\\\0\xff b".to_vec()));
        for bad in [&b"\\"[..], b"\\q", b"\\x0", b"\\xgg"] {
            assert_eq!(unescape(bad), None);
        }
    }
}
