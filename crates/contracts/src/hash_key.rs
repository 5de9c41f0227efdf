//! The record of a partition's hash key, in `analytics.state`.

use std::fmt;

use crate::codec::{DecodeError, Fields, begin, put_bytes};
use crate::schema;

/// The secret key with which a partition hashes users and event ids. Whoever knows it can compute users that collide; it
/// appears in no log, error or tool.
#[derive(Clone, PartialEq, Eq)]
pub struct HashKey(pub [u8; Self::BYTES]);

// Without the bytes.
impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(..)")
    }
}

impl HashKey {
    /// Its length.
    pub const BYTES: usize = 16;

    /// Appends the framed record value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        begin(out, schema::HASH_KEY);
        put_bytes(out, &self.0);
    }

    /// Reads a framed record value.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut fields = Fields::open(value, schema::HASH_KEY)?;
        let key = fields.bytes("key")?.try_into().map_err(|_| DecodeError::Range("key"))?;
        fields.finish()?;
        Ok(Self(key))
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::types::Value;

    use super::*;
    use crate::schema::tests::avro_bytes;

    #[test]
    fn a_key_equals_apache_avro_byte_for_byte_and_never_shows() {
        let record = |bytes: &[u8]| {
            avro_bytes(schema::HASH_KEY, Value::Record(vec![("key".into(), Value::Bytes(bytes.to_vec()))]))
        };
        let (key, mut bytes) = (HashKey([7; 16]), Vec::new());
        key.encode(&mut bytes);
        assert_eq!(bytes, record(&[7; 16]));
        assert_eq!(HashKey::decode(&bytes), Ok(key.clone()));
        assert_eq!(HashKey::decode(&record(&[7; 15])), Err(DecodeError::Range("key")));
        assert_eq!(format!("{key:?}"), "HashKey(..)");
    }
}
