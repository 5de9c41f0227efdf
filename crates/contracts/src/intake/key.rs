//! Keys of `intake.state`.

use std::fmt;

use super::Sender;

/// The key of a state change. Every change of a partition of `intake` goes to the same partition of `intake.state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IntakeKey<'a> {
    /// `range/{p}/{principal}/{client}/{epoch}`: the numbers that a client has used. Only for senders with an epoch.
    Ranges {
        /// The partition of `intake`.
        partition: u32,
        /// The sender's principal.
        principal: &'a str,
        /// The client's id.
        client: &'a str,
        /// The number space.
        epoch: u64,
    },
    /// `series/{p}/{nonce}`: how far a series of frames has come; the nonce in 16 hex digits.
    Series {
        /// The partition of `intake`.
        partition: u32,
        /// The series' nonce.
        nonce: u64,
    },
    /// `time/{p}`: log time, and from where on last arrivals are read again.
    Progress(u32),
}

impl fmt::Display for IntakeKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ranges { partition, principal, client, epoch } => {
                write!(f, "range/{partition}/{principal}/{client}/{epoch}")
            }
            Self::Series { partition, nonce } => write!(f, "series/{partition}/{nonce:016x}"),
            Self::Progress(partition) => write!(f, "time/{partition}"),
        }
    }
}

impl<'a> IntakeKey<'a> {
    /// The key of a sender's numbers; `None` without an epoch.
    pub fn ranges_of(partition: u32, sender: Sender<'a>) -> Option<Self> {
        let Sender { principal, client, epoch } = sender;
        epoch.map(|epoch| Self::Ranges { partition, principal, client, epoch })
    }

    /// Reads a record key; `None` if it is not one of these.
    pub fn parse(key: &'a [u8]) -> Option<Self> {
        let (kind, rest) = std::str::from_utf8(key).ok()?.split_once('/')?;
        if kind == "time" {
            return Some(Self::Progress(rest.parse().ok()?));
        }
        let (partition, rest) = rest.split_once('/')?;
        let partition = partition.parse().ok()?;
        match kind {
            "series" => Some(Self::Series { partition, nonce: u64::from_str_radix(rest, 16).ok()? }),
            "range" => {
                // A principal may have a slash, a client and an epoch have none.
                let (sender, epoch) = rest.rsplit_once('/')?;
                let (principal, client) = sender.rsplit_once('/')?;
                Some(Self::Ranges { partition, principal, client, epoch: epoch.parse().ok()? })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_as_they_are_written() {
        for (key, text) in [
            (IntakeKey::Ranges { partition: 3, principal: "", client: "s:7", epoch: 0 }, "range/3//s:7/0"),
            (IntakeKey::Ranges { partition: 3, principal: "a/b", client: "-", epoch: 12 }, "range/3/a/b/-/12"),
            (IntakeKey::Series { partition: 0, nonce: 0xab }, "series/0/00000000000000ab"),
            (IntakeKey::Progress(11), "time/11"),
        ] {
            assert_eq!(key.to_string(), text);
            assert_eq!(IntakeKey::parse(text.as_bytes()), Some(key));
        }
        for bad in ["", "time", "time/x", "range/1/a/2", "range/1//a/x", "series/1/g", "series/1", "pos/1/2"] {
            assert_eq!(IntakeKey::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
