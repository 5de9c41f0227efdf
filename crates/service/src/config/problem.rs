//! A problem of the configuration, and the origin of a setting.

use std::fmt;
use std::path::PathBuf;

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The default text.
    Default,
    /// The file.
    File {
        /// Its path.
        path: PathBuf,
        /// Line, from 1; 0 for the file as a whole.
        line: usize,
    },
    /// This variable of the environment.
    Environment(String),
    /// A flag.
    Flag,
}

/// One problem of the configuration. Displays as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The key, such as `query.listen`.
    pub key: String,
    /// Where the setting comes from.
    pub origin: Origin,
    /// The problem and the allowed values.
    pub problem: String,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line: 0 } => write!(f, "{}", path.display()),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::Flag => f.write_str("flag"),
        }
    }
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.key, self.origin, self.problem.replace('\n', " "))
    }
}

impl std::error::Error for ConfigProblem {}
