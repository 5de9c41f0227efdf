//! Names of topics and subscriptions.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A name: `[^\s<>.?:;"*|\\/]{1,127}`, no control characters, taken as it is (no normalization). Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Name(Arc<str>);

/// A text that is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not between 1 and 127 characters.
    #[error("must have 1..=127 characters")]
    Length,
    /// A character that names do not have.
    #[error("must not contain white space, control characters or any of < > . ? : ; \" * | \\ /")]
    Character,
    /// The prefix of Millrace's own names.
    #[error("must not begin with millrace-, which is reserved")]
    Reserved,
}

impl Name {
    /// Most characters of a name.
    pub const MAX_CHARS: usize = 127;
    /// The beginning of the names of Millrace's own topics.
    pub const RESERVED: &str = "millrace-";
    const EVENTS: &str = "millrace-events";

    /// A client's name.
    ///
    /// # Errors
    /// Says which rule the text breaks.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if text.starts_with(Self::RESERVED) {
            return Err(NameError::Reserved);
        }
        Self::of_system(text)
    }

    /// A name that may also be one of Millrace's own.
    ///
    /// # Errors
    /// Says which rule the text breaks.
    pub fn of_system(text: &str) -> Result<Self, NameError> {
        if !(1..=Self::MAX_CHARS).contains(&text.chars().take(Self::MAX_CHARS + 1).count()) {
            return Err(NameError::Length);
        }
        let forbidden = |c: char| {
            c.is_whitespace()
                || c.is_control()
                || matches!(c, '<' | '>' | '.' | '?' | ':' | ';' | '"' | '*' | '|' | '\\' | '/')
        };
        if text.contains(forbidden) { Err(NameError::Character) } else { Ok(Self(text.into())) }
    }

    /// The topic of events about subscriptions.
    pub fn events() -> Self {
        Self(Self::EVENTS.into())
    }

    /// Whether it is the topic of events about subscriptions.
    pub fn is_events(&self) -> bool {
        self.as_str() == Self::EVENTS
    }

    /// Whether it is one of Millrace's own.
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with(Self::RESERVED)
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.as_str().to_owned()
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        Self::of_system(&text)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_pattern() {
        for good in ["a", "ä-ö_1", "orders", "名前", &"x".repeat(127), "%2e", "a,b"] {
            assert_eq!(Name::parse(good).map(|name| name.to_string()), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("", NameError::Length),
            (&*"x".repeat(128), NameError::Length),
            ("a b", NameError::Character),
            ("a\u{2003}b", NameError::Character),
            ("a.b", NameError::Character),
            ("..", NameError::Character),
            ("a/b", NameError::Character),
            ("a\\b", NameError::Character),
            ("a:b", NameError::Character),
            ("a\0", NameError::Character),
            ("a\u{85}", NameError::Character),
            ("millrace-x", NameError::Reserved),
        ] {
            assert_eq!(Name::parse(bad), Err(why), "{bad:?}");
        }
        assert_eq!(Name::of_system("millrace-events"), Ok(Name::events()));
        assert!(Name::events().is_events() && Name::events().is_reserved());
    }
}
