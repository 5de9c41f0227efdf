//! The table of outcome codes and HTTP statuses, in both directions.

use ::http::StatusCode;
use millrace_contracts::{Code, Refusal};

/// The HTTP status of a code.
pub fn status_of(code: Code) -> StatusCode {
    match code {
        Code::Accepted => StatusCode::NO_CONTENT,
        Code::MissingField
        | Code::DuplicateField
        | Code::UnknownField
        | Code::InvalidField
        | Code::InvalidEncoding
        | Code::MalformedBody
        | Code::BadRequest => StatusCode::BAD_REQUEST,
        Code::OutsideWindow
        | Code::KeyReused
        | Code::InvalidToken
        | Code::BlockedTarget
        | Code::ConsentRefused
        | Code::EmptyBatch => StatusCode::UNPROCESSABLE_ENTITY,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Forbidden | Code::CrossSite => StatusCode::FORBIDDEN,
        Code::Exists | Code::NameResting | Code::StaleToken | Code::Suspended | Code::WrongMode => StatusCode::CONFLICT,
        Code::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        Code::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        Code::TooLarge | Code::TooManyItems => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UriTooLong => StatusCode::URI_TOO_LONG,
        Code::UnsupportedMediaType | Code::UnsupportedEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Code::RateLimited | Code::TooManyDelayed => StatusCode::TOO_MANY_REQUESTS,
        Code::Overloaded
        | Code::Unavailable
        | Code::DiskFull
        | Code::ShuttingDown
        | Code::OutcomeUnknown
        | Code::Rebuilding
        | Code::NotYetVisible => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// The refusal for a status that a library chose: hyper's parser, the framework's router or an extractor.
pub(super) fn refusal_of(status: StatusCode) -> Refusal {
    let (code, detail) = match status {
        StatusCode::UNAUTHORIZED => (Code::Unauthenticated, "the request needs a credential"),
        StatusCode::FORBIDDEN => (Code::Forbidden, "not allowed"),
        StatusCode::NOT_FOUND => (Code::NotFound, "no such route"),
        StatusCode::CONFLICT => (Code::Exists, "in conflict with what exists"),
        StatusCode::PRECONDITION_FAILED => (Code::PreconditionFailed, "a precondition of the request fails"),
        StatusCode::METHOD_NOT_ALLOWED => (Code::MethodNotAllowed, "the route has no such method; see Allow"),
        StatusCode::NOT_ACCEPTABLE => (Code::NotAcceptable, "no acceptable representation"),
        StatusCode::REQUEST_TIMEOUT => (Code::RequestTimeout, "the request took too long to arrive"),
        StatusCode::PAYLOAD_TOO_LARGE => (Code::TooLarge, "the body is larger than allowed"),
        StatusCode::URI_TOO_LONG => (Code::UriTooLong, "the request target is longer than allowed"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            (Code::UnsupportedMediaType, "the media type of the body is not supported")
        }
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            (Code::HeadersTooLarge, "the header fields are larger or more than allowed")
        }
        StatusCode::TOO_MANY_REQUESTS => (Code::RateLimited, "too many requests"),
        StatusCode::SERVICE_UNAVAILABLE => (Code::Unavailable, "temporarily unavailable"),
        other if other.is_client_error() => (Code::BadRequest, "the request is malformed"),
        _ => (Code::Internal, "a fault of the server"),
    };
    Refusal::new(code, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusal_of_a_status_has_that_status() {
        for &code in Code::ALL {
            let status = status_of(code);
            let mapped = status_of(refusal_of(status).code);
            if status != StatusCode::NO_CONTENT && status != StatusCode::UNPROCESSABLE_ENTITY {
                assert_eq!(mapped, status, "{code}");
            }
        }
    }
}
