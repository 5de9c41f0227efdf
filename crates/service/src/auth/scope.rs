//! Scopes: what a credential allows.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What a credential allows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Scope { $($(#[$doc])* $name,)* }

        impl Scope {
            /// Every scope.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The scope as text.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

scopes! {
    /// Record events: single ones, batches, and the pixel.
    EventsWrite = "events:write",
    /// Record impressions by the pixel's parameter `key`, and nothing else. A key of this scope has no other.
    PixelWrite = "pixel:write",
    /// Read counts, the live stream and the dashboard.
    CountsRead = "counts:read",
    /// Create, alter and delete topics, and grant rights to them.
    TopicsManage = "topics:manage",
    /// Publish to topics that the principal owns or has a grant for.
    TopicsPublish = "topics:publish",
    /// Subscribe to topics, and pull and acknowledge messages.
    TopicsSubscribe = "topics:subscribe",
    /// Send messages over TCP.
    IntakeWrite = "intake:write",
    /// Everything, also with the topics and subscriptions of others; metrics, inspection and rebuilds.
    Admin = "admin",
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", ");
        let found = Self::ALL.iter().copied().find(|scope| scope.as_str() == text);
        found.ok_or_else(|| format!("must be one of {}", names()))
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(|why| de::Error::custom(format!("a scope {why}")))
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u16);

impl Scopes {
    /// Whether the set allows `scope`: it contains it, or `admin`, which includes every other.
    pub fn allow(self, scope: Scope) -> bool {
        self.contains(scope) || self.contains(Scope::Admin)
    }

    /// Whether the set contains `scope` itself.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & bit(scope) != 0
    }

    /// Whether the set has a scope besides `scope`.
    pub(crate) fn has_more_than(self, scope: Scope) -> bool {
        self.0 & !bit(scope) != 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | bit(scope)))
    }
}

fn bit(scope: Scope) -> u16 {
    1 << scope as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_includes_every_scope_and_no_other_includes_any() {
        for &held in Scope::ALL {
            let set = Scopes::from_iter([held]);
            for &scope in Scope::ALL {
                assert_eq!(set.allow(scope), held == scope || held == Scope::Admin, "{held} {scope}");
            }
        }
        assert!(Scope::ALL.iter().all(|&scope| !Scopes::default().allow(scope)));
    }

    #[test]
    fn text_and_scope_are_inverse() {
        assert!(Scope::ALL.iter().all(|scope| scope.as_str().parse() == Ok(*scope)));
        assert!("events:*".parse::<Scope>().unwrap_err().contains("events:write"));
    }
}
