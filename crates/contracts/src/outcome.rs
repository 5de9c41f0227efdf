//! The outcome codes of problem documents, batch items and metric labels.

use std::fmt;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    /// Skip the item, with a trace of it, and continue.
    Skip,
    /// Retry after a pause.
    Retry,
    /// Stop the component. Its supervisor restarts it from durable state, or ends the process.
    Stop,
}

macro_rules! codes {
    ($($(#[doc = $meaning:literal])+ $name:ident = $text:literal,)*) => {
        /// A stable outcome code. Clients may match on [`Code::as_str`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[doc = $meaning])+ $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code as text.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The meaning of the code, a sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($meaning),+).trim_start(),)* }
            }
        }
    };
}

codes! {
    /// The item is durable in the log.
    Accepted = "accepted",
    /// A required parameter or field is missing.
    MissingField = "missing-field",
    /// A parameter or field occurs twice, or two that exclude each other both occur.
    DuplicateField = "duplicate-field",
    /// A parameter or field is unknown.
    UnknownField = "unknown-field",
    /// A parameter or field has an invalid value.
    InvalidField = "invalid-field",
    /// Percent-encoding or character encoding is invalid.
    InvalidEncoding = "invalid-encoding",
    /// The body does not conform to its media type.
    MalformedBody = "malformed-body",
    /// The request itself is malformed.
    BadRequest = "bad-request",
    /// The timestamp lies outside the window that the operator accepts.
    OutsideWindow = "outside-window",
    /// It exists already, with another owner or other settings.
    Exists = "exists",
    /// A topic of this name was deleted a moment ago.
    NameResting = "name-resting",
    /// The credential is missing or not valid.
    Unauthenticated = "unauthenticated",
    /// The credential lacks a scope, or it belongs to another principal.
    Forbidden = "forbidden",
    /// A browser sent the request for a page of another site.
    CrossSite = "cross-site",
    /// It is not as the request requires it to be.
    PreconditionFailed = "precondition-failed",
    /// The idempotency key was used for another message.
    KeyReused = "key-reused",
    /// Too many delayed messages wait in the topic.
    TooManyDelayed = "too-many-delayed",
    /// The tokens are of another position, lease or subscription.
    StaleToken = "stale-token",
    /// A text that is no token, or an altered one.
    InvalidToken = "invalid-token",
    /// The subscription is suspended.
    Suspended = "suspended",
    /// The subscription's mode does not have this call.
    WrongMode = "wrong-mode",
    /// The address of a push endpoint is not allowed.
    BlockedTarget = "blocked-target",
    /// The endpoint of a push subscription does not agree to get messages.
    ConsentRefused = "consent-refused",
    /// The batch has no items.
    EmptyBatch = "empty-batch",
    /// No such route, topic or subscription.
    NotFound = "not-found",
    /// The route has no such method.
    MethodNotAllowed = "method-not-allowed",
    /// No representation the client accepts.
    NotAcceptable = "not-acceptable",
    /// Head or body took too long to arrive.
    RequestTimeout = "request-timeout",
    /// The body or a record is larger than allowed.
    TooLarge = "too-large",
    /// More items than a batch may have.
    TooManyItems = "too-many-items",
    /// The request target is longer than allowed.
    UriTooLong = "uri-too-long",
    /// The media type of the body is not supported.
    UnsupportedMediaType = "unsupported-media-type",
    /// The content coding of the body is not supported.
    UnsupportedEncoding = "unsupported-encoding",
    /// Header fields exceed the limits of size or number.
    HeadersTooLarge = "headers-too-large",
    /// The client exceeds its rate limit.
    RateLimited = "rate-limited",
    /// A bounded queue is full; the item is not in the log.
    Overloaded = "overloaded",
    /// A dependency is unreachable; the item is not in the log.
    Unavailable = "unavailable",
    /// Free disk space is below the minimum; the item is not in the log.
    DiskFull = "disk-full",
    /// The process is shutting down; the item is not in the log.
    ShuttingDown = "shutting-down",
    /// The item may or may not be in the log.
    OutcomeUnknown = "outcome-unknown",
    /// The read model is being rebuilt and may be incomplete.
    Rebuilding = "rebuilding",
    /// No read model has counted the events that a read requires.
    NotYetVisible = "not-yet-visible",
    /// A fault of the server.
    Internal = "internal",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
