//! Input of others, made fit for an error text or a log line.

const MOST_CHARS: usize = 64;

/// A piece of input for an error text: at most 64 characters, control characters escaped.
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MOST_CHARS));
    let mut left = MOST_CHARS;
    for c in text.chars() {
        let needed = if c.is_control() { c.escape_default().len() } else { 1 };
        // Room for the mark that something is missing is kept until the end is known.
        if needed >= left && out.len() + c.len_utf8() < text.len() {
            out.push('…');
            return out;
        }
        left = left.saturating_sub(needed);
        if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_shown_of_input() {
        assert_eq!(shown("click"), "click");
        assert_eq!(shown("a\r\nb\u{85}"), "a\\r\\nb\\u{85}");
        assert_eq!(shown(&"x".repeat(1000)), format!("{}…", "x".repeat(63)));
    }

    proptest! {
        #[test]
        fn short_and_printable(text: String) {
            let got = shown(&text);
            prop_assert!(got.chars().count() <= MOST_CHARS);
            prop_assert!(!got.chars().any(char::is_control));
        }
    }
}
