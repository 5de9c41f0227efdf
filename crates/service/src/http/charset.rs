//! The charset of a request's text (RFC 9110, 8.3.2), with the labels of the Encoding Standard. Text is converted to UTF-8 whole,
//! within the same bound as an inflated body.

use encoding_rs::{DecoderResult, Encoding, UTF_8, UTF_16BE, UTF_16LE};
use tokio::task::yield_now;

use super::inflate::{DecodeError, grow};
use crate::net::{MemoryBudget, MemoryPermit};

/// Other tasks run after this many converted bytes.
const PIECE: usize = 64 << 10;
/// More than any decoder needs for its next step.
const SLACK: usize = 16;

/// A charset that can be converted to UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charset(&'static Encoding);

impl Charset {
    /// UTF-8, which needs no conversion.
    pub const UTF_8: Self = Self(UTF_8);

    /// The charset with this label, whatever its case.
    pub(super) fn of_label(label: &str) -> Option<Self> {
        Encoding::for_label_no_replacement(label.as_bytes()).map(Self)
    }

    /// The name of the charset.
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// Converts a text to at most `max` bytes of UTF-8, which are taken from `memory` before they are allocated. Of UTF-16 a
    /// byte order mark decides the order.
    pub(super) async fn convert(
        self,
        mut text: &[u8],
        max: usize,
        memory: &MemoryBudget,
    ) -> Result<(Vec<u8>, Option<MemoryPermit>), DecodeError> {
        let mut decoder = if self.0 == UTF_16LE || self.0 == UTF_16BE {
            self.0.new_decoder()
        } else {
            self.0.new_decoder_without_bom_handling()
        };
        let (mut converted, mut permit) = (Vec::new(), None);
        loop {
            let begin = converted.len();
            let needed = decoder.max_utf8_buffer_length_without_replacement(text.len()).unwrap_or(PIECE);
            let piece = needed.min(PIECE).min(max - begin + SLACK);
            grow(&mut converted, piece, max + SLACK, memory, &mut permit)?;
            converted.resize(begin + piece, 0);
            let (result, read, written) =
                decoder.decode_to_utf8_without_replacement(text, &mut converted[begin..], true);
            converted.truncate(begin + written);
            text = &text[read..];
            if converted.len() > max {
                return Err(DecodeError::TooLarge);
            }
            match result {
                DecoderResult::InputEmpty => return Ok((converted, permit)),
                DecoderResult::OutputFull => yield_now().await,
                DecoderResult::Malformed(..) => return Err(DecodeError::Malformed),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn convert(label: &str, text: &[u8], max: usize) -> Result<String, DecodeError> {
        let memory = MemoryBudget::new(1 << 20);
        let converted = Charset::of_label(label).unwrap().convert(text, max, &memory).await;
        let text = converted.map(|(text, _permit)| String::from_utf8(text).unwrap());
        assert!(memory.try_acquire(1 << 20).is_some(), "everything is given back");
        text
    }

    #[tokio::test]
    async fn converts_what_senders_use() {
        for (label, text, expected) in [
            ("ISO-8859-1", &b"n\xe4me \x80"[..], "n\u{e4}me \u{20ac}"),
            ("us-ascii", b"name", "name"),
            ("windows-1251", b"\xcc\xe8\xf0", "\u{41c}\u{438}\u{440}"),
            ("Shift_JIS", b"\x93\xfa\x96\x7b", "\u{65e5}\u{672c}"),
            ("gb18030", b"\xd6\xd0\xce\xc4", "\u{4e2d}\u{6587}"),
            ("utf-16le", b"a\0\xe4\0", "a\u{e4}"),
            ("utf-16be", b"\0a\0\xe4", "a\u{e4}"),
            ("utf-16", b"\xff\xfea\0", "a"),
            ("utf-16", b"\xfe\xff\0a", "a"),
            ("utf-16", b"\x3d\xd8\0\xde", "\u{1f600}"),
        ] {
            assert_eq!(convert(label, text, 64).await.as_deref(), Ok(expected), "{label}");
        }
    }

    #[tokio::test]
    async fn bytes_without_a_character_are_malformed() {
        for (label, text) in
            [("Shift_JIS", &b"a\x93"[..]), ("utf-16le", b"a\0b"), ("utf-16le", b"\0\xd8a\0"), ("euc-kr", b"\xff\xff")]
        {
            assert_eq!(convert(label, text, 64).await, Err(DecodeError::Malformed), "{label}");
        }
    }

    #[tokio::test]
    async fn the_bound_is_that_of_the_converted_text() {
        let text = vec![0xe4; 100_000];
        assert_eq!(convert("latin1", &text, 200_000).await.map(|text| text.len()), Ok(200_000));
        for max in [0, 1, 199_999] {
            assert_eq!(convert("latin1", &text, max).await, Err(DecodeError::TooLarge), "{max}");
        }
        let memory = MemoryBudget::new(100_000);
        let converted = Charset::of_label("latin1").unwrap().convert(&text, 200_000, &memory).await;
        assert_eq!(converted.map(|_| ()), Err(DecodeError::NoMemory));
        assert!(memory.try_acquire(100_000).is_some(), "everything is given back");
    }

    #[test]
    fn unknown_labels_have_no_charset() {
        for label in ["", "ebcdic", "utf-7", "utf-32", "iso-2022-kr", "replacement"] {
            assert_eq!(Charset::of_label(label), None, "{label}");
        }
        assert_eq!(Charset::of_label("UTF8"), Some(Charset::UTF_8));
    }
}
