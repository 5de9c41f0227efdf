//! What became of the messages.

use std::collections::BTreeMap;
use std::fmt;

#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub(super) struct Report {
    pub(super) client: String,
    pub(super) epoch: u64,
    /// Lines of the input.
    pub(super) messages: u64,
    /// Frames sent, with those sent again.
    pub(super) sent: u64,
    pub(super) acknowledged: u64,
    /// Refused for good, by the word of the reply.
    pub(super) refused: BTreeMap<String, u64>,
    pub(super) resent: u64,
    /// Messages without an answer.
    pub(super) unknown: u64,
    /// Why the sender gave up.
    pub(super) gave_up: Option<String>,
}

impl Report {
    pub(super) fn exit_code(&self) -> u8 {
        match (&self.gave_up, self.refused.is_empty()) {
            (Some(_), _) => crate::EXIT_UNAVAILABLE,
            (None, false) => 1,
            (None, true) => 0,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, sent, acknowledged, resent, unknown, .. } = self;
        write!(f, "{messages} messages: {acknowledged} acknowledged")?;
        for (word, number) in &self.refused {
            write!(f, ", {number} refused ({word})")?;
        }
        write!(f, ", {unknown} unknown; {sent} frames sent, {resent} of them again")?;
        if let Some(why) = &self.gave_up {
            write!(f, "\ngave up: {why}\nto go on, repeat the command with --epoch {}", self.epoch)?;
        }
        Ok(())
    }
}
