//! Why a token is not taken.

use jsonwebtoken::errors::ErrorKind;
use metrics::counter;
use millrace_contracts::metric;

macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Why a token is not taken. For the operator: whoever shows it learns no more than that it is not valid.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(in crate::auth) enum TokenRefusal { $($(#[$doc])* $name,)* }

        impl TokenRefusal {
            /// Every one.
            pub(in crate::auth) const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word of metrics.
            pub(in crate::auth) const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

refusals! {
    /// The issuer's keys have not been read yet.
    NoKeys = "no-keys",
    /// Longer than a token may be.
    TooLarge = "too-large",
    /// Not a signed token in the compact form, or its header has what is not understood.
    Malformed = "malformed",
    /// The issuer has no key of this id.
    UnknownKey = "unknown-key",
    /// The issuer's key is for another algorithm.
    Algorithm = "algorithm",
    /// The signature is wrong.
    Signature = "signature",
    /// `exp` is past.
    Expired = "expired",
    /// `nbf` is to come.
    Immature = "not-yet-valid",
    /// `iss` is another.
    Issuer = "issuer",
    /// `aud` is somebody else.
    Audience = "audience",
    /// A claim is missing or of no use.
    Claims = "claims",
}

impl TokenRefusal {
    /// Counts it.
    pub(super) fn count(self) {
        counter!(metric::AUTH_TOKENS_REFUSED.name, "reason" => self.as_str()).increment(1);
    }
}

impl From<&ErrorKind> for TokenRefusal {
    fn from(kind: &ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidSignature => Self::Signature,
            ErrorKind::ExpiredSignature => Self::Expired,
            ErrorKind::ImmatureSignature => Self::Immature,
            ErrorKind::InvalidIssuer => Self::Issuer,
            ErrorKind::InvalidAudience => Self::Audience,
            ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => Self::Claims,
            ErrorKind::InvalidAlgorithm => Self::Algorithm,
            _ => Self::Malformed,
        }
    }
}
