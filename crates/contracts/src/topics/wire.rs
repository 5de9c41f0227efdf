//! Calls and replies on the wire between processes: postcard, a compact serde format.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Call, CallError, Reply};
use crate::{Code, Refusal};

/// The route of the internal listener.
pub const CALLS_PATH: &str = "/internal/calls";

/// A reply as it travels.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Reply(Reply),
    Elsewhere,
    Refused { code: String, field: Option<String>, detail: String, retry_after_ms: Option<u64> },
}

/// Bytes that are no call or reply; the processes are of versions that do not understand each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a call of this version: {0}")]
pub struct WireError(#[from] postcard::Error);

/// Encodes a call.
///
/// # Errors
/// None that a call causes.
pub fn encode_call(call: &Call) -> Result<Vec<u8>, WireError> {
    Ok(postcard::to_allocvec(call)?)
}

/// Decodes a call.
///
/// # Errors
/// Bytes that are none.
pub fn decode_call(bytes: &[u8]) -> Result<Call, WireError> {
    Ok(postcard::from_bytes(bytes)?)
}

/// Encodes a reply.
///
/// # Errors
/// None that a reply causes.
pub fn encode_reply(reply: Result<Reply, CallError>) -> Result<Vec<u8>, WireError> {
    let answer = match reply {
        Ok(reply) => Answer::Reply(reply),
        Err(CallError::Elsewhere) => Answer::Elsewhere,
        Err(CallError::Refused(refusal)) => Answer::Refused {
            code: refusal.code.as_str().to_owned(),
            field: refusal.field.map(Cow::into_owned),
            detail: refusal.detail.into_owned(),
            retry_after_ms: refusal.retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        },
    };
    Ok(postcard::to_allocvec(&answer)?)
}

/// Decodes a reply.
///
/// # Errors
/// Bytes that are none.
pub fn decode_reply(bytes: &[u8]) -> Result<Result<Reply, CallError>, WireError> {
    Ok(match postcard::from_bytes(bytes)? {
        Answer::Reply(reply) => Ok(reply),
        Answer::Elsewhere => Err(CallError::Elsewhere),
        Answer::Refused { code, field, detail, retry_after_ms } => {
            let code = Code::ALL.iter().copied().find(|known| known.as_str() == code).unwrap_or(Code::Internal);
            Err(CallError::Refused(Refusal {
                code,
                field: field.map(Cow::Owned),
                detail: Cow::Owned(detail),
                retry_after: retry_after_ms.map(Duration::from_millis),
            }))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topics::{Filter, Name, Principal, Request, Start, SubscriptionSettings};

    #[test]
    fn calls_and_replies_survive_the_wire() {
        let filter =
            Filter::parse(&serde_json::json!({"any": [{"exact": {"a": "b"}}, {"not": {"prefix": {"c": "d"}}}]}))
                .unwrap();
        let settings = SubscriptionSettings { filter: Some(filter), ..SubscriptionSettings::default() };
        let call = Call {
            partition: 3,
            topic: Some(Name::parse("orders").unwrap()),
            principal: Principal { name: "key:a".into(), admin: false },
            request: Request::CreateSubscription {
                push: crate::topics::PushPatch { push: Some(true), settings: Some("{}".into()) },
                subscription: Name::parse("w").unwrap(),
                settings,
                start: Start::At(-5),
            },
        };
        assert_eq!(decode_call(&encode_call(&call).unwrap()), Ok(call));
        let refusal = Refusal::new(Code::NameResting, "rests").field("topic").retry_after(Duration::from_secs(3));
        for reply in [Ok(Reply::Done), Err(CallError::Elsewhere), Err(CallError::Refused(refusal))] {
            assert_eq!(decode_reply(&encode_reply(reply.clone()).unwrap()), Ok(reply));
        }
        assert!(decode_call(b"").is_err());
    }
}
