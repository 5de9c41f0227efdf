//! A message's content: JSON, written anew as one text.

use serde_json::Deserializer;
use serde_json::value::RawValue;

/// The JSON text without white space between its tokens and with every string escaped alike. Order and repetition of
/// members and the form of numbers stay. `None` if the bytes are not JSON in UTF-8.
pub(super) fn reserialized(body: &[u8]) -> Option<String> {
    let mut rest = serde_json::from_slice::<&RawValue>(body).ok()?.get();
    let mut out = String::with_capacity(rest.len());
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => {
                let mut strings = Deserializer::from_str(rest).into_iter::<String>();
                let text = strings.next()?.ok()?;
                out.push_str(&serde_json::to_string(&text).ok()?);
                strings.byte_offset()
            }
            ' ' | '\t' | '\n' | '\r' => 1,
            token => {
                out.push(token);
                token.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_anew() {
        for (given, expected) in [
            (r#" { "b" : 1.50 , "a" : [ 1E2, true, null ] } "#, Some(r#"{"b":1.50,"a":[1E2,true,null]}"#)),
            (r#"{"a": 12345678901234567890123, "a": "x  y"}"#, Some(r#"{"a":12345678901234567890123,"a":"x  y"}"#)),
            ("\"caf\\u00e9 \\/ \\\" \\\\ \\n\"", Some("\"café / \\\" \\\\ \\n\"")),
            ("\n17\n", Some("17")),
            ("\"\"", Some("\"\"")),
            ("{}", Some("{}")),
            ("", None),
            ("{\"a\":}", None),
            ("{} {}", None),
            ("\"\\ud800\"", None),
            ("nul", None),
        ] {
            assert_eq!(reserialized(given.as_bytes()).as_deref(), expected, "{given}");
        }
        assert_eq!(reserialized(b"\"\xff\""), None);
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(reserialized(deep.as_bytes()), Some(deep));
    }
}
