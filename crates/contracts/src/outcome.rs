//! The one list of outcome codes: problem documents, batch items and metric labels all use it.

use std::fmt;

/// What the one who met an error does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    /// Leave the item aside, visibly, and go on.
    Skip,
    /// Try the same again after a pause.
    Retry,
    /// End the component; its supervisor starts it anew from what is durable, or ends the process.
    Stop,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// A stable word for how something ended. Clients may match on [`Code::as_str`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[$doc])* $name,)* }

        impl Code {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The code's word.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

codes! {
    /// The item is durable in the log.
    Accepted = "accepted",
    /// A parameter or field that must be there is not.
    MissingField = "missing-field",
    /// A parameter or field stands there twice, or two that exclude each other both do.
    DuplicateField = "duplicate-field",
    /// A parameter or field that is not known here.
    UnknownField = "unknown-field",
    /// A parameter or field has a value outside its type.
    InvalidField = "invalid-field",
    /// Percent-encoding or character encoding is broken.
    InvalidEncoding = "invalid-encoding",
    /// The body is not the media type it claims to be.
    MalformedBody = "malformed-body",
    /// The request itself is malformed.
    BadRequest = "bad-request",
    /// The timestamp lies outside the window the operator accepts.
    OutsideWindow = "outside-window",
    /// No such route.
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
    /// A body type that is not served here.
    UnsupportedMediaType = "unsupported-media-type",
    /// A content coding that is not served here.
    UnsupportedEncoding = "unsupported-encoding",
    /// Header fields are larger, or more, than allowed.
    HeadersTooLarge = "headers-too-large",
    /// The caller is over its quota.
    RateLimited = "rate-limited",
    /// A bounded queue is full; nothing was stored.
    Overloaded = "overloaded",
    /// A dependency cannot be reached; nothing was stored.
    Unavailable = "unavailable",
    /// The disk is at its reserve; nothing was stored.
    DiskFull = "disk-full",
    /// The process is ending; nothing was stored.
    ShuttingDown = "shutting-down",
    /// The item may or may not be in the log.
    OutcomeUnknown = "outcome-unknown",
    /// The read model is not known to be complete.
    Rebuilding = "rebuilding",
    /// A fault of ours.
    Internal = "internal",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
