//! Settings of the earlier system's calls.

use millrace_base::{Bounds, Violation};
use millrace_service::auth::routes::ROUTES;
use serde::Deserialize;

/// Longest prefix in bytes.
const MAX_PREFIX: usize = 64;

/// Settings of the earlier system's calls.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LegacyConfig {
    /// Whether they are served.
    pub enabled: bool,
    /// Path in front of them; `/` for none.
    pub prefix: String,
}

impl Default for LegacyConfig {
    fn default() -> Self {
        Self { enabled: false, prefix: "/legacy".into() }
    }
}

impl LegacyConfig {
    /// Settings outside their bounds.
    pub(crate) fn validate(&self) -> Vec<Violation> {
        let mut bounds = Bounds::new();
        let allowed =
            "\"/\", or 1..=64 characters of a-z A-Z 0-9 . _ ~ - in segments that / begins, none of another route";
        bounds.check(self.is_path(), "prefix", allowed);
        bounds.into_violations()
    }

    fn is_path(&self) -> bool {
        let Some(path) = self.prefix.strip_prefix('/') else { return false };
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        let segment = |text: &str| !matches!(text, "" | "." | "..") && text.bytes().all(legal);
        let first = path.split('/').next().unwrap_or_default();
        // Also a route of the read side: a proxy may have both sides under one name.
        let taken = ROUTES.iter().any(|row| row.path.split('/').nth(1) == Some(first));
        path.is_empty() || (self.prefix.len() <= MAX_PREFIX && path.split('/').all(segment) && !taken)
    }

    /// What stands in front of each path.
    pub(in crate::topics) fn base(&self) -> &str {
        self.prefix.trim_end_matches('/')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_path_of_its_own() {
        let config = |prefix: &str| LegacyConfig { enabled: true, prefix: prefix.into() };
        for (prefix, base) in [("/", ""), ("/legacy", "/legacy"), ("/old/v1", "/old/v1"), ("/a.b_c~d-e", "/a.b_c~d-e")]
        {
            assert_eq!((config(prefix).validate().len(), config(prefix).base()), (0, base), "{prefix}");
        }
        for bad in ["", "old", "/old/", "//", "/a//b", "/a b", "/{a}", "/..", "/ä"] {
            assert_eq!(config(bad).validate().len(), 1, "{bad}");
        }
        // The page of topics has /topics/{file}, which /topics/health would hide.
        for taken in ["/topics", "/v1", "/v1/topics", "/analytics", "/docs/x", "/pixel.gif", "/livez", "/status"] {
            assert_eq!(config(taken).validate().len(), 1, "{taken}");
        }
        assert_eq!(config(&format!("/{}", "x".repeat(64))).validate().len(), 1);
    }
}
