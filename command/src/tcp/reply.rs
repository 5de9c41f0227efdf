//! Replies of the protocol: one line each.

/// After how many ms a client tries again what is unavailable now.
const RETRY_MS: u64 = 1_000;
/// The same after its limits refuse it: they do so only if it has to wait for longer.
const RATE_RETRY_MS: u64 = 10_000;

/// Why one frame was refused. Nothing of it is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nack {
    /// Longer than a message may be.
    TooLarge,
    /// Another client's id than the connection's.
    ClientIdChanged,
    /// An earlier frame has to be sent again first.
    Behind,
    /// The log cannot be reached.
    Unavailable,
    /// The log's disk is at its reserve.
    DiskFull,
    /// A journal is so far behind that records could expire before it has them.
    JournalLagging,
    /// The sender has used more than its limits, by more than reading can wait for.
    RateLimited,
}

/// Why the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    /// The framing is lost.
    BadFrame,
    /// The token is missing, or not valid any more.
    Unauthenticated,
    /// It is not known yet whether the token is valid: the issuer's keys are being read.
    Unavailable,
    /// The token lacks the scope.
    Forbidden,
    /// There is no valid token, and the address has come without one too often.
    RateLimited,
    /// Nothing came for too long.
    Idle,
    /// A frame did not end in time.
    Partial,
    /// The process ends.
    ShuttingDown,
}

/// A line to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    Ack(u64),
    Nack(u64, Nack),
    Hello,
    Pong,
    Bye,
    Close(Closing),
}

/// What replies repeat of the limits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Announced {
    /// Most bytes of a message.
    pub(crate) max_message: usize,
    /// Most frames without an answer.
    pub(crate) window: usize,
    /// After so many seconds an idle connection is closed.
    pub(crate) idle_seconds: u64,
}

impl Nack {
    pub(crate) const ALL: [Self; 7] = [
        Self::TooLarge,
        Self::ClientIdChanged,
        Self::Behind,
        Self::Unavailable,
        Self::DiskFull,
        Self::JournalLagging,
        Self::RateLimited,
    ];

    /// The word of the reply and of metrics.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::ClientIdChanged => "client-id-changed",
            Self::Behind => "behind",
            Self::Unavailable => "unavailable",
            Self::DiskFull => "disk-full",
            Self::JournalLagging => "journal-lagging",
            Self::RateLimited => "rate-limited",
        }
    }

    const fn status(self) -> &'static str {
        match self {
            Self::TooLarge => "413",
            Self::ClientIdChanged => "403",
            Self::Behind => "409",
            Self::RateLimited => "429",
            Self::Unavailable => "503",
            Self::DiskFull | Self::JournalLagging => "507",
        }
    }
}

impl Closing {
    /// The word of the reply and of metrics.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::BadFrame => "bad-frame",
            Self::Unauthenticated => "unauthenticated",
            Self::Unavailable => "unavailable",
            Self::Forbidden => "forbidden",
            Self::RateLimited => "rate-limited",
            Self::Idle => "idle",
            Self::Partial => "partial",
            Self::ShuttingDown => "shutting-down",
        }
    }

    const fn status(self) -> &'static str {
        match self {
            Self::BadFrame => "400",
            Self::Unauthenticated => "401",
            Self::Forbidden => "403",
            Self::RateLimited => "429",
            Self::Idle | Self::Partial => "408",
            Self::Unavailable | Self::ShuttingDown => "503",
        }
    }
}

impl Reply {
    /// Appends the line.
    pub(crate) fn write(self, announced: &Announced, out: &mut Vec<u8>) {
        match self {
            Self::Ack(seq) => {
                out.extend_from_slice(b"ACK ");
                number(seq, out);
            }
            Self::Nack(seq, nack) => {
                out.extend_from_slice(b"NACK ");
                number(seq, out);
                for part in [" ", nack.status(), " ", nack.word()] {
                    out.extend_from_slice(part.as_bytes());
                }
                match nack {
                    Nack::TooLarge => named(" max=", announced.max_message as u64, out),
                    Nack::Unavailable => named(" retry_ms=", RETRY_MS, out),
                    Nack::RateLimited => named(" retry_ms=", RATE_RETRY_MS, out),
                    Nack::ClientIdChanged | Nack::Behind | Nack::DiskFull | Nack::JournalLagging => {}
                }
            }
            Self::Hello => {
                named("OK max=", announced.max_message as u64, out);
                named(" window=", announced.window as u64, out);
                named(" idle=", announced.idle_seconds, out);
                out.extend_from_slice(b" ack=replicated");
            }
            Self::Pong => out.extend_from_slice(b"PONG"),
            Self::Bye => out.extend_from_slice(b"BYE"),
            Self::Close(why) => {
                for part in ["NACK 0 ", why.status(), " ", why.word()] {
                    out.extend_from_slice(part.as_bytes());
                }
                if why == Closing::Unavailable {
                    named(" retry_ms=", RETRY_MS, out);
                }
            }
        }
        out.push(b'\n');
    }
}

fn named(name: &str, value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    number(value, out);
}

fn number(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}
