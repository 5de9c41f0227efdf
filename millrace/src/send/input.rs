//! Lines of files and of the standard input as messages.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;

use anyhow::Context as _;
use tokio::sync::mpsc;

/// A longer line is no message of any server.
const MAX_LINE: usize = 1 << 20;

/// A line of the input.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Without its LF.
    Message(Vec<u8>),
    /// Longer than any message may be.
    TooLong,
    /// The input cannot be read any further.
    Failed(String),
}

/// Reads the files one after the other on a thread of its own; `-` is the standard input. The channel's capacity bounds
/// what is read ahead.
pub(super) fn read(files: Vec<PathBuf>, capacity: usize) -> mpsc::Receiver<Line> {
    let (lines, receiver) = mpsc::channel(capacity);
    std::thread::spawn(move || {
        for path in files {
            let read = if path.as_os_str() == "-" {
                read_lines(&mut io::stdin().lock(), &lines).context("standard input")
            } else {
                let opened = File::open(&path).map(BufReader::new);
                opened.and_then(|mut file| read_lines(&mut file, &lines)).with_context(|| path.display().to_string())
            };
            if let Err(error) = read {
                let _ = lines.blocking_send(Line::Failed(crate::text::chain(&error)));
                return;
            }
        }
    });
    receiver
}

fn read_lines(input: &mut impl BufRead, lines: &mpsc::Sender<Line>) -> io::Result<()> {
    loop {
        let Some(line) = read_line(input)? else { return Ok(()) };
        if lines.blocking_send(line).is_err() {
            return Ok(());
        }
    }
}

/// The next line; a last line without LF is one, too.
fn read_line(input: &mut impl BufRead) -> io::Result<Option<Line>> {
    let (mut line, mut any, mut too_long) = (Vec::new(), false, false);
    loop {
        let bytes = input.fill_buf()?;
        if bytes.is_empty() {
            break;
        }
        any = true;
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        too_long |= line.len() + part.len() > MAX_LINE;
        if !too_long {
            line.extend_from_slice(part);
        }
        let used = end.map_or(bytes.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            break;
        }
    }
    Ok(any.then_some(if too_long { Line::TooLong } else { Line::Message(line) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_message() {
        let long = "x".repeat(MAX_LINE + 1);
        let text = format!("a\n\nb\r\n{long}\nlast");
        let mut input = BufReader::with_capacity(7, text.as_bytes());
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut input).unwrap() {
            lines.push(line);
        }
        let message = |text: &str| Line::Message(text.as_bytes().to_vec());
        assert_eq!(lines, [message("a"), message(""), message("b\r"), Line::TooLong, message("last")]);
    }
}
