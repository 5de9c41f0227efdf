//! How a record stands in a segment: one line of text, or a header line and the raw bytes.

use std::io::{self, BufRead, Read as _};

use jiff::Timestamp;
use millrace_contracts::JournalRecord;

/// The format of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// `<time> <client> <seq> <crc32c> <payload>`, the payload escaped: one line for each record.
    Text,
    /// `<time> <client> <seq> <crc32c> <length>`, LF, the payload as it is, LF.
    Framed,
}

/// One record of a segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entry {
    /// Time, client and number as they are written.
    pub head: String,
    /// CRC-32C of the payload, as written.
    pub crc32c: u32,
    /// The bytes that the client sent.
    pub payload: Vec<u8>,
    /// The bytes of the record in the segment.
    pub bytes: u64,
}

impl Entry {
    /// Whether the payload matches its checksum.
    pub fn is_intact(&self) -> bool {
        crc32c::crc32c(&self.payload) == self.crc32c
    }

    /// Appends the record as a line of text.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(format!(" {:08x} ", self.crc32c).as_bytes());
        escape(&self.payload, out);
        out.push(b'\n');
    }

    /// Its time, µs since the epoch.
    pub fn time_us(&self) -> Option<i64> {
        let time = self.head.split(' ').next()?;
        Some(time.parse::<Timestamp>().ok()?.as_microsecond())
    }
}

/// Writes records in one format. Remembers the text of the last second.
#[derive(Debug)]
pub(super) struct Encoder {
    format: Format,
    second: i64,
    second_text: String,
}

impl Encoder {
    pub(super) fn new(format: Format) -> Self {
        Self { format, second: i64::MIN, second_text: String::new() }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    /// Appends a record.
    pub(super) fn encode(&mut self, record: &JournalRecord<'_>, out: &mut Vec<u8>) {
        self.time(record.received_at_us, out);
        out.push(b' ');
        if !record.sender.principal.is_empty() {
            escape_principal(record.sender.principal, out);
            out.push(b'/');
        }
        out.extend_from_slice(record.sender.client.as_bytes());
        out.push(b' ');
        out.extend_from_slice(itoa::Buffer::new().format(record.seq).as_bytes());
        out.push(b' ');
        hex(&record.crc32c.to_be_bytes(), out);
        out.push(b' ');
        match self.format {
            Format::Text => escape(record.payload, out),
            Format::Framed => {
                out.extend_from_slice(itoa::Buffer::new().format(record.payload.len()).as_bytes());
                out.push(b'\n');
                out.extend_from_slice(record.payload);
            }
        }
        out.push(b'\n');
    }

    /// RFC 3339, UTC, with microseconds.
    fn time(&mut self, us: i64, out: &mut Vec<u8>) {
        let clamped = us.clamp(Timestamp::MIN.as_microsecond(), Timestamp::MAX.as_microsecond());
        let (second, fraction) = (clamped.div_euclid(1_000_000), clamped.rem_euclid(1_000_000));
        if second != self.second || self.second_text.is_empty() {
            let text = Timestamp::from_second(second).unwrap_or_default().to_string();
            self.second_text = text.trim_end_matches('Z').into();
            self.second = second;
        }
        out.extend_from_slice(self.second_text.as_bytes());
        out.push(b'.');
        let mut digits = [b'0'; 6];
        let text = itoa::Buffer::new().format(fraction).to_owned();
        digits[6 - text.len()..].copy_from_slice(text.as_bytes());
        out.extend_from_slice(&digits);
        out.push(b'Z');
    }
}

const HEX: [u8; 16] = *b"0123456789abcdef";

fn hex(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(bytes.iter().flat_map(|byte| [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]));
}

fn escape_byte(byte: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\\x");
    hex(&[byte], out);
}

/// Appends bytes as text in one line: control characters and what is not UTF-8 as `\xHH`.
pub(super) fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.iter().all(|&byte| (b' '..=b'~').contains(&byte) && byte != b'\\') {
        return out.extend_from_slice(bytes);
    }
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            let mut buffer = [0; 4];
            let text = character.encode_utf8(&mut buffer);
            match character {
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\\' => out.extend_from_slice(b"\\\\"),
                _ if character.is_control() => text.bytes().for_each(|byte| escape_byte(byte, out)),
                _ => out.extend_from_slice(text.as_bytes()),
            }
        }
        chunk.invalid().iter().for_each(|&byte| escape_byte(byte, out));
    }
}

fn escape_principal(principal: &str, out: &mut Vec<u8>) {
    let mut escaped = Vec::new();
    escape(principal.as_bytes(), &mut escaped);
    for byte in escaped {
        if matches!(byte, b' ' | b'/') { escape_byte(byte, out) } else { out.push(byte) }
    }
}

/// The bytes that [`escape`] made text of.
fn unescape(text: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&byte| byte == b'\\') {
        out.extend_from_slice(&rest[..at]);
        let (byte, len) = match rest.get(at + 1)? {
            b'n' => (b'\n', 2),
            b'r' => (b'\r', 2),
            b'\\' => (b'\\', 2),
            b'x' => {
                let digits = std::str::from_utf8(rest.get(at + 2..at + 4)?).ok()?;
                (u8::from_str_radix(digits, 16).ok()?, 4)
            }
            _ => return None,
        };
        out.push(byte);
        rest = &rest[at + len..];
    }
    out.extend_from_slice(rest);
    Some(())
}

/// Longest header of a framed record: time, principal and client, escaped, number, checksum, length.
const MAX_HEADER: u64 = 8 << 10;
/// Longest line of text: a payload of 1 MiB, every byte escaped.
const MAX_LINE: u64 = (4 << 20) + MAX_HEADER;

/// Reads the next record; `false` at the end of the input. Bytes that are no record are an error of the kind
/// `InvalidData`.
pub(super) fn read_entry(format: Format, input: &mut impl BufRead, entry: &mut Entry) -> io::Result<bool> {
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut line = Vec::new();
    let max = if format == Format::Text { MAX_LINE } else { MAX_HEADER };
    let read = input.by_ref().take(max).read_until(b'\n', &mut line)? as u64;
    if read == 0 {
        return Ok(false);
    }
    if line.pop() != Some(b'\n') {
        return Err(invalid("a record does not end"));
    }
    // Time, client, number, checksum; the payload may have spaces of its own.
    let mut words = line.splitn(5, |&byte| byte == b' ');
    let head_len = words.by_ref().take(3).map(<[u8]>::len).sum::<usize>() + 2;
    let (crc, last) = words.next().zip(words.next()).ok_or_else(|| invalid("a record lacks fields"))?;
    let crc = std::str::from_utf8(crc).ok().filter(|crc| crc.len() == 8);
    entry.crc32c =
        crc.and_then(|crc| u32::from_str_radix(crc, 16).ok()).ok_or_else(|| invalid("a checksum is no number"))?;
    entry.head = String::from_utf8(line[..head_len].to_vec()).map_err(|_| invalid("a header is not UTF-8"))?;
    entry.payload.clear();
    entry.bytes = read;
    match format {
        Format::Text => unescape(last, &mut entry.payload).ok_or_else(|| invalid("an escape is not known"))?,
        Format::Framed => {
            let len = std::str::from_utf8(last).ok().and_then(|len| len.parse::<u64>().ok());
            let len = len.filter(|len| *len <= 1 << 20).ok_or_else(|| invalid("a length is no number"))?;
            let payload = input.by_ref().take(len + 1).read_to_end(&mut entry.payload)? as u64;
            if payload <= len || entry.payload.pop() != Some(b'\n') {
                return Err(invalid("a payload does not end"));
            }
            entry.bytes += payload;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use millrace_contracts::Sender;
    use proptest::prelude::*;

    use super::*;

    fn record<'a>(principal: &'a str, payload: &'a [u8]) -> JournalRecord<'a> {
        JournalRecord {
            sender: Sender { principal, client: "sensor7", epoch: None },
            seq: 12,
            received_at_us: 1_700_000_000_000_042,
            crc32c: crc32c::crc32c(payload),
            payload,
        }
    }

    fn text(record: &JournalRecord<'_>) -> String {
        let mut out = Vec::new();
        Encoder::new(Format::Text).encode(record, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_read_as_the_page_says() {
        assert_eq!(text(&record("", b"hello")), "2023-11-14T22:13:20.000042Z sensor7 12 9a71bb4c hello\n");
        assert_eq!(text(&record("", b"")), "2023-11-14T22:13:20.000042Z sensor7 12 00000000 \n");
        assert!(text(&record("a b/c", b"")).contains(" a\\x20b\\x2fc/sensor7 12 "));
        for (payload, escaped) in [
            (&b"a\nb\r\\"[..], "a\\nb\\r\\\\"),
            (b"\0\t\x7f", "\\x00\\x09\\x7f"),
            ("\u{85}ä€".as_bytes(), "\\xc2\\x85ä€"),
            (b"\xff\xc3", "\\xff\\xc3"),
            (b" a  b ", " a  b "),
        ] {
            let line = text(&record("", payload));
            assert!(line.ends_with(&format!(" {escaped}\n")), "{line}");
        }
        let mut out = Vec::new();
        Encoder::new(Format::Framed).encode(&record("", b"a\nb"), &mut out);
        assert!(out.ends_with(b" 3\na\nb\n"), "{}", String::from_utf8_lossy(&out));
        let mut early = record("", b"");
        early.received_at_us = -1;
        assert!(text(&early).starts_with("1969-12-31T23:59:59.999999Z "));
        early.received_at_us = i64::MAX;
        assert!(text(&early).starts_with("9999-12-"), "{}", text(&early));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..9),
            principal in "[ -~ä]{0,5}",
            framed: bool,
        ) {
            let format = if framed { Format::Framed } else { Format::Text };
            let (mut out, mut encoder) = (Vec::new(), Encoder::new(format));
            for payload in &payloads {
                encoder.encode(&record(&principal, payload), &mut out);
            }
            let (mut input, mut entry, mut bytes) = (&out[..], Entry::default(), 0);
            for payload in &payloads {
                prop_assert!(read_entry(format, &mut input, &mut entry).unwrap());
                prop_assert_eq!(&entry.payload, payload);
                prop_assert!(entry.is_intact());
                prop_assert_eq!(entry.time_us(), Some(1_700_000_000_000_042));
                let mut line = Vec::new();
                entry.write_text(&mut line);
                prop_assert_eq!(String::from_utf8(line).unwrap(), text(&record(&principal, payload)));
                bytes += entry.bytes;
            }
            prop_assert!(!read_entry(format, &mut input, &mut entry).unwrap());
            prop_assert_eq!(bytes, out.len() as u64);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, framed: bool) {
            let format = if framed { Format::Framed } else { Format::Text };
            let mut input = &bytes[..];
            while let Ok(true) = read_entry(format, &mut input, &mut Entry::default()) {}
        }
    }
}
