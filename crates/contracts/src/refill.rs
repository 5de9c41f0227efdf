//! A request to fill Redis with an older hour, the record of `analytics.refill`.

use crate::codec::{DecodeError, Fields, begin, put_long};
use crate::{Hour, schema};

/// A request to fill Redis with an older hour. A hint: it may be lost, repeated or late, and nothing waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefillRequest {
    /// The hour to fill.
    pub hour: Hour,
    /// When the request was made, ms since the epoch.
    pub requested_at_ms: i64,
}

impl RefillRequest {
    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::REFILL_REQUEST);
        put_long(out, self.hour.start_ms());
        put_long(out, self.requested_at_ms);
    }

    /// Reads a framed record value.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::REFILL_REQUEST)?;
        let start_ms = fields.long("hour")?;
        let hour = Hour::of_ms(start_ms);
        if hour.start_ms() != start_ms || !(Hour::from_index(0)..=Hour::MAX).contains(&hour) {
            return Err(DecodeError::Range("hour"));
        }
        let requested_at_ms = fields.long("requested_at")?;
        fields.finish()?;
        Ok(Self { hour, requested_at_ms })
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
        fn equals_apache_avro_byte_for_byte(hour in 0..=Hour::MAX.index(), requested_at_ms: i64) {
            let request = RefillRequest { hour: Hour::from_index(hour), requested_at_ms };
            let mut bytes = Vec::new();
            request.encode(&mut bytes);
            let avro = Value::Record(vec![
                ("hour".into(), Value::TimestampMillis(request.hour.start_ms())),
                ("requested_at".into(), Value::TimestampMillis(requested_at_ms)),
            ]);
            prop_assert_eq!(&bytes, &avro_bytes(schema::REFILL_REQUEST, avro));
            prop_assert_eq!(RefillRequest::decode(&bytes), Ok(request));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut framed = vec![0, 0, 0, 0, 20];
            framed.extend(bytes);
            let _ = RefillRequest::decode(&framed);
        }
    }
}
