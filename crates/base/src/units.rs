//! Durations and sizes as people write them: `"10s"`, `"64MiB"`.

use std::fmt;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration with a unit: `0s`, `500ms`, `30s`, `5m`, `1h`, `7d`, `1h 30m`. Whether zero makes sense is for the bounds of
/// a setting to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// A number of bytes with a unit: `0B`, `64KiB`, `1MiB`, `2GiB`. Whether zero makes sense is for the bounds of a setting to
/// decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

const DAY: Duration = Duration::from_hours(24);

impl Span {
    const ALLOWED: &str = "a duration in ms, s, m, h or d, such as \"500ms\", \"30s\", \"5m\", \"1h\" or \"7d\"";

    /// A span of `ms`.
    pub const fn from_millis(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// A span of whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// In ms, for APIs that count them so.
    pub fn as_millis(self) -> u64 {
        u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX)
    }

    /// Reads a duration in jiff's friendly format. `None` if it is negative, finer than 1 ms, or past 63 bits of ms.
    pub fn parse(text: &str) -> Option<Self> {
        // Days have no fixed length to jiff, since some time zones have days of 23 or 25 hours. Here they have 24.
        let duration = match text.strip_suffix('d') {
            Some(days) => DAY.checked_mul(days.bytes().all(|b| b.is_ascii_digit()).then(|| days.parse().ok())??)?,
            None => Duration::try_from(friendly(text)?).ok()?,
        };
        i64::try_from(duration.as_millis()).ok()?;
        duration.subsec_nanos().is_multiple_of(1_000_000).then_some(Self(duration))
    }
}

fn friendly(text: &str) -> Option<SignedDuration> {
    let friendly = text.starts_with(|c: char| c.is_ascii_digit()) && text.ends_with(|c: char| c.is_ascii_lowercase());
    friendly.then(|| text.parse().ok())?
}

impl Size {
    const ALLOWED: &str = "a whole number with one of the units B, KiB, MiB, GiB, TiB, such as \"64KiB\"";
    const UNITS: [(&str, u64); 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

    /// A size of whole KiB.
    pub const fn from_kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// A size of whole MiB.
    pub const fn from_mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// A size of whole GiB.
    pub const fn from_gib(gib: u64) -> Self {
        Self(gib << 30)
    }

    /// As a length in memory; saturates.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }

    /// Reads digits and a unit. `None` unless their product is within 63 bits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let factor = Self::UNITS.iter().find(|(name, _)| *name == unit)?.1;
        let bytes = number.parse::<u64>().ok()?.checked_mul(factor)?;
        (bytes <= i64::MAX.cast_unsigned()).then_some(Self(bytes))
    }
}

impl fmt::Display for Span {
    /// The largest single unit that divides it: `90s`, `1h`, `7d`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u128); 4] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
        let ms = self.0.as_millis();
        let unit = UNITS.iter().find(|(_, factor)| ms > 0 && ms.is_multiple_of(*factor));
        let (name, factor) = unit.copied().unwrap_or(if ms == 0 { ("s", 1) } else { ("ms", 1) });
        write!(f, "{}{name}", ms / factor)
    }
}

impl fmt::Display for Size {
    /// The largest unit that divides it: `1280KiB`, `1MiB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = Self::UNITS.iter().find(|(_, factor)| self.0 > 0 && self.0.is_multiple_of(*factor));
        let (name, factor) = unit.copied().unwrap_or(("B", 1));
        write!(f, "{}{name}", self.0 / factor)
    }
}

macro_rules! as_text {
    ($type:ident) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

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

as_text!(Span);
as_text!(Size);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_a_unit_and_whole_milliseconds() {
        let good = [
            ("0s", 0),
            ("1ms", 1),
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            ("1h 30m", 5_400_000),
            ("1.5s", 1_500),
        ];
        for (text, ms) in good {
            assert_eq!(Span::parse(text), Some(Span::from_millis(ms)), "{text}");
        }
        for bad in
            ["", "30", "s", "d", "-1s", "1s ago", " 1s", "1S", "1us", "1.5d", "+1d", "18446744073709551615d", "1x"]
        {
            assert_eq!(Span::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn sizes_have_a_unit() {
        let good =
            [("0B", 0), ("100B", 100), ("64KiB", 65_536), ("1MiB", 1 << 20), ("2GiB", 2 << 30), ("1TiB", 1 << 40)];
        for (text, bytes) in good {
            assert_eq!(Size::parse(text), Some(Size(bytes)), "{text}");
        }
        for bad in ["", "1", "-1B", "1kb", "1MB", "1 MiB", "99999999999999999GiB"] {
            assert_eq!(Size::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for text in ["1ms", "90s", "1h", "7d", "1500ms"] {
            assert_eq!(Span::parse(text).unwrap().to_string(), text);
        }
        for text in ["100B", "1280KiB", "1MiB", "2GiB"] {
            assert_eq!(Size::parse(text).unwrap().to_string(), text);
        }
    }
}
