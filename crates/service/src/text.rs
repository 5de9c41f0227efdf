//! Client input in error texts and log lines.

use millrace_base::limits::MAX_ECHO_CHARS;

/// Client input for an error text: shortened to [`MAX_ECHO_CHARS`], with control characters escaped.
pub fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_ECHO_CHARS));
    let mut left = MAX_ECHO_CHARS;
    for c in text.chars() {
        let needed = if c.is_control() { c.escape_default().len() } else { 1 };
        // Until the end is reached, one character is reserved for the ellipsis.
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
    fn input_is_shortened_and_escaped() {
        assert_eq!(shown("click"), "click");
        assert_eq!(shown("a\r\nb\u{85}"), "a\\r\\nb\\u{85}");
        assert_eq!(shown(&"x".repeat(1000)), format!("{}…", "x".repeat(63)));
    }

    proptest! {
        #[test]
        fn output_is_short_and_printable(text: String) {
            let got = shown(&text);
            prop_assert!(got.chars().count() <= MAX_ECHO_CHARS);
            prop_assert!(!got.chars().any(char::is_control));
        }
    }
}
