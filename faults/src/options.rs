//! The options of a fault run, from the environment.

use std::env;
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use millrace_testkit::millrace_bin;

use crate::system::Engine;

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides every event and every fault.
    pub seed: u64,
    /// Which engines.
    pub engines: Vec<Engine>,
    /// Length of a random run.
    pub length: Duration,
    /// Parts to run; empty for all.
    pub only: Vec<String>,
    /// Whether the binary has fail points.
    pub fail_points: bool,
}

impl Options {
    /// Reads `SEED`, `ENGINE`, `SECONDS`, `ONLY` and `CONTROLS`. `SECONDS` may be the first argument instead, because
    /// shells use a variable of that name themselves.
    ///
    /// # Errors
    /// The variable that is invalid, and what is allowed.
    pub fn from_env() -> Result<Self, String> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let number = |name: &str, default: u64| match variable(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("{name}={text}: allowed is a whole number")),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let engines = match variable("ENGINE").as_deref() {
            None | Some("both") => vec![Engine::Embedded, Engine::Kafka],
            Some("embedded") => vec![Engine::Embedded],
            Some("kafka") => vec![Engine::Kafka],
            Some(other) => return Err(format!("ENGINE={other}: allowed are kafka, embedded and both")),
        };
        let mut only: Vec<String> =
            variable("ONLY").iter().flat_map(|text| text.split(',')).map(|word| word.trim().to_owned()).collect();
        if variable("CONTROLS").as_deref() == Some("1") {
            only.push("controls".to_owned());
        }
        let seconds = match env::args().nth(1).filter(|text| !text.is_empty()) {
            Some(text) => text.parse().map_err(|_| format!("SECONDS={text}: allowed is a whole number"))?,
            None => number("SECONDS", 300)?,
        };
        let length = Duration::from_secs(seconds);
        Ok(Self { seed: number("SEED", now)?, engines, length, only, fail_points: has_fail_points() })
    }

    /// Whether this part is selected.
    pub fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| word == part)
    }
}

/// Whether the binary under test has fail points: only then it refuses an invalid `MILLRACE_CRASH`.
pub fn has_fail_points() -> bool {
    let mut probe = Command::new(millrace_bin());
    probe.args(["check-config", "--print-default"]).env("MILLRACE_CRASH", "broken");
    probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| !status.success())
}
