//! A reader's wish that an older hour be put into Redis again, as it stands in `analytics.refresh`.

use crate::codec::{DecodeError, Fields, begin, put_long};
use crate::{Hour, schema};

/// A wish: it may be lost, come twice or come late, and is never an answer to anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefreshAsked {
    /// The hour wanted.
    pub hour: Hour,
    /// When it was asked for, ms since the epoch.
    pub asked_at_ms: i64,
}

impl RefreshAsked {
    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::REFRESH_ASKED);
        put_long(out, self.hour.start_ms());
        put_long(out, self.asked_at_ms);
    }

    /// Reads a framed record value.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::REFRESH_ASKED)?;
        let start_ms = fields.long("hour")?;
        let hour = Hour::of_ms(start_ms);
        if hour.start_ms() != start_ms || !(Hour::from_index(0)..=Hour::MAX).contains(&hour) {
            return Err(DecodeError::Range("hour"));
        }
        let asked_at_ms = fields.long("asked_at")?;
        fields.finish()?;
        Ok(Self { hour, asked_at_ms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::tests::avro_bytes;
    use apache_avro::types::Value;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_apache_avro_byte_for_byte(hour in 0..=Hour::MAX.index(), asked_at_ms: i64) {
            let asked = RefreshAsked { hour: Hour::from_index(hour), asked_at_ms };
            let mut bytes = Vec::new();
            asked.encode(&mut bytes);
            let avro = Value::Record(vec![
                ("hour".into(), Value::TimestampMillis(asked.hour.start_ms())),
                ("asked_at".into(), Value::TimestampMillis(asked_at_ms)),
            ]);
            prop_assert_eq!(&bytes, &avro_bytes(schema::REFRESH_ASKED, avro));
            prop_assert_eq!(RefreshAsked::decode(&bytes), Ok(asked));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut framed = vec![0, 0, 0, 0, 20];
            framed.extend(bytes);
            let _ = RefreshAsked::decode(&framed);
        }
    }
}
