//! Acknowledgement tokens.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use crc32fast::Hasher;

use super::{SettledRange, TopicId};

/// What a reader hands back to acknowledge a message: the subscription's epoch and the range that the message settles.
///
/// The text carries a checksum against damage and no secret: an owner may acknowledge what it likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AckToken {
    /// The topic's incarnation.
    pub topic: TopicId,
    /// Offset of the command that created the subscription.
    pub subscription: u64,
    /// The cursor's epoch.
    pub epoch: u64,
    /// What an acknowledgement settles.
    pub range: SettledRange,
    /// Number of the lease under which the message was handed out; 0: without one.
    pub lease: u64,
}

/// A text that is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is not a token that was handed out here")]
pub struct TokenError;

const LENGTH: usize = 4 + 8 * 8 + 4;

impl AckToken {
    /// The token as text, base64url without padding.
    pub fn encode(&self) -> String {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend(self.topic.partition.to_be_bytes());
        let range = &self.range;
        let words = [self.topic.offset, self.subscription, self.epoch, range.ordinal_after, range.ordinal, self.lease];
        bytes.extend(words.into_iter().flat_map(u64::to_be_bytes));
        bytes.extend([range.after, range.offset].into_iter().flat_map(i64::to_be_bytes));
        bytes.extend(checksum(&bytes).to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token.
    ///
    /// # Errors
    /// Malformed, altered or cut texts.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let mut buffer = [0; LENGTH + 3];
        let length = URL_SAFE_NO_PAD.decode_slice(text, &mut buffer).map_err(|_| TokenError)?;
        let (bytes, sum) = buffer[..length].split_last_chunk::<4>().ok_or(TokenError)?;
        if length != LENGTH || u32::from_be_bytes(*sum) != checksum(bytes) {
            return Err(TokenError);
        }
        let (partition, words) = bytes.split_first_chunk::<4>().ok_or(TokenError)?;
        let (words, _) = words.as_chunks::<8>();
        let word = |index: usize| u64::from_be_bytes(words[index]);
        let range = SettledRange {
            after: word(6).cast_signed(),
            offset: word(7).cast_signed(),
            ordinal_after: word(3),
            ordinal: word(4),
        };
        Ok(Self {
            topic: TopicId { partition: u32::from_be_bytes(*partition), offset: word(0) },
            subscription: word(1),
            epoch: word(2),
            range,
            lease: word(5),
        })
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new_with_initial(0x6d69_6c6c);
    hasher.update(bytes);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn any_token()(partition: u32, words in any::<[u64; 6]>(), after: i64, offset: i64) -> AckToken {
            AckToken {
                topic: TopicId { partition, offset: words[0] },
                subscription: words[1],
                epoch: words[2],
                range: SettledRange { after, offset, ordinal_after: words[3], ordinal: words[4] },
                lease: words[5],
            }
        }
    }

    proptest! {
        #[test]
        fn a_token_survives_its_text(token in any_token()) {
            prop_assert_eq!(AckToken::parse(&token.encode()), Ok(token));
        }

        #[test]
        fn an_altered_token_is_refused(token in any_token(), at in 0..96_usize, to in "[A-Za-z0-9_-]") {
            let text = token.encode();
            let mut altered = text.clone();
            altered.replace_range(at..=at, &to);
            prop_assume!(altered != text);
            prop_assert_eq!(AckToken::parse(&altered), Err(TokenError));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in ".{0,200}") {
            prop_assert_eq!(AckToken::parse(&text), Err(TokenError));
        }
    }
}
