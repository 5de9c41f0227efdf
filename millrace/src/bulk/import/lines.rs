//! The input as lines of bounded length, with their numbers and ends.

use std::io::{BufRead as _, BufReader, Read};

use serde::{Deserialize, Serialize};

/// Longest line. An event needs a fraction of it.
pub(super) const MAX_LINE_BYTES: usize = 64 * 1024;

const BUFFER: usize = 1 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A position between two lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    /// Bytes before it.
    pub(super) offset: u64,
    /// Lines before it.
    pub(super) line: u64,
}

/// The result of reading a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Line {
    /// A line; [`Lines::text`] has it.
    Whole,
    /// A line longer than [`MAX_LINE_BYTES`], which was skipped.
    TooLong,
}

/// Reads lines.
pub(super) struct Lines {
    input: BufReader<Box<dyn Read + Send>>,
    mark: Mark,
    buffer: Vec<u8>,
}

impl Lines {
    /// Reads from here on; `mark` is the position of the input.
    pub(super) fn new(input: Box<dyn Read + Send>, mark: Mark) -> Self {
        Self { input: BufReader::with_capacity(BUFFER, input), mark, buffer: Vec::new() }
    }

    /// Reads the next line; `None` at the end.
    pub(super) fn next(&mut self) -> std::io::Result<Option<Line>> {
        self.buffer.clear();
        let limit = MAX_LINE_BYTES as u64 + 1;
        let mut read = (&mut self.input).take(limit).read_until(b'\n', &mut self.buffer)? as u64;
        if read == 0 {
            return Ok(None);
        }
        let too_long = read == limit && !self.buffer.ends_with(b"\n");
        if too_long {
            read += self.input.skip_until(b'\n')? as u64;
        }
        self.mark.offset += read;
        self.mark.line += 1;
        Ok(Some(if too_long { Line::TooLong } else { Line::Whole }))
    }

    /// The last line, without its end and without a byte order mark.
    pub(super) fn text(&self) -> &[u8] {
        let text = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if self.mark.line == 1 { text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text) } else { text }
    }

    /// The position after the last line.
    pub(super) fn mark(&self) -> Mark {
        self.mark
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lines_with_their_numbers_and_ends() {
        let long = "x".repeat(MAX_LINE_BYTES);
        let text = format!("\u{feff}a\r\n\n{long}\n{long}y\nend");
        let mut lines = Lines::new(Box::new(std::io::Cursor::new(text.clone().into_bytes())), Mark::default());
        let mut read = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            let text = (line == Line::Whole).then(|| String::from_utf8(lines.text().to_vec()).unwrap());
            read.push((lines.mark().line, lines.mark().offset, text));
        }
        let most = MAX_LINE_BYTES as u64;
        let expected = [
            (1, 6, Some("a".to_owned())),
            (2, 7, Some(String::new())),
            (3, 8 + most, Some(long)),
            (4, 10 + 2 * most, None),
            (5, 13 + 2 * most, Some("end".into())),
        ];
        assert_eq!(read, expected);
        assert_eq!(lines.mark().offset, text.len() as u64);
    }
}
