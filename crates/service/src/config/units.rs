//! Durations and sizes as people write them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// A duration with a unit: `500ms`, `30s`, `5m`, `1h`, `7d`. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes with a unit: `100B`, `64KiB`, `1MiB`, `2GiB`. Never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl Span {
    const ALLOWED: &str = "a whole number above 0 with one of the units ms, s, m, h, d, such as \"30s\"";
    const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

    fn parse(text: &str) -> Option<Self> {
        Some(Self(Duration::from_millis(scaled(text, &Self::UNITS)?)))
    }
}

impl Size {
    const ALLOWED: &str = "a whole number above 0 with one of the units B, KiB, MiB, GiB, such as \"64KiB\"";
    const UNITS: [(&str, u64); 4] = [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];

    fn parse(text: &str) -> Option<Self> {
        scaled(text, &Self::UNITS).map(Self)
    }
}

/// `None` unless `text` is digits and a unit, their product above zero and within 63 bits.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let factor = units.iter().find(|(name, _)| *name == unit)?.1;
    let product = number.parse::<u64>().ok()?.checked_mul(factor)?;
    (1..=i64::MAX.cast_unsigned()).contains(&product).then_some(product)
}

macro_rules! from_text {
    ($type:ident) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl de::Visitor<'_> for Text {
                    type Value = $type;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str($type::ALLOWED)
                    }

                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$type, E> {
                        $type::parse(text).ok_or_else(|| E::custom(format_args!("must be {}", $type::ALLOWED)))
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }
    };
}

from_text!(Span);
from_text!(Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_unit_and_are_above_zero() {
        let good = [("500ms", 500), ("30s", 30_000), ("5m", 300_000), ("1h", 3_600_000), ("7d", 604_800_000)];
        for (text, ms) in good {
            assert_eq!(Span::parse(text), Some(Span(Duration::from_millis(ms))), "{text}");
        }
        for bad in [
            "",
            "30",
            "s",
            "0s",
            "-1s",
            "1.5s",
            " 1s",
            "1 s",
            "1S",
            "1w",
            "18446744073709551615d",
            "9999999999999999999s",
        ] {
            assert_eq!(Span::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_have_a_unit_and_are_above_zero() {
        let good = [("100B", 100), ("64KiB", 65_536), ("1MiB", 1 << 20), ("2GiB", 2 << 30)];
        for (text, bytes) in good {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
        }
        for bad in ["", "1", "0B", "-1B", "1kb", "1MB", "1 MiB", "99999999999999999GiB"] {
            assert_eq!(Size::parse(bad), None, "{bad}");
        }
    }
}
