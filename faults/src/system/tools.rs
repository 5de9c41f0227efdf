//! The tools, with the settings of a run.

use std::process::{Command, Stdio};

use millrace_testkit::millrace_bin;

use super::System;

impl System {
    /// Runs a subcommand with the run's settings, bypassing all links, and returns its output.
    ///
    /// # Errors
    /// Its error output if it fails.
    pub fn tool(&self, arguments: &[&str]) -> Result<String, String> {
        let mut tool = Command::new(millrace_bin());
        tool.args(arguments).stdin(Stdio::null()).current_dir(&self.folder);
        for (key, value) in &self.settings {
            tool.args(["--set", &format!("{key}={value}")]);
        }
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("MILLRACE_") {
                tool.env_remove(name);
            }
        }
        let output = tool.output().map_err(|error| error.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!("millrace {}: {}: {}", arguments.join(" "), output.status, String::from_utf8_lossy(&output.stderr)))
    }
}
