//! The product's tools on the system under test.

use std::process::{Command, Output, Stdio};

use millrace_testkit::millrace_bin;

use super::System;

impl System {
    /// Runs a subcommand with the run's settings, bypassing all links, and returns its output.
    ///
    /// # Errors
    /// Its error output if it fails.
    pub fn tool(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.output(arguments)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(format!("millrace {}: {}: {}", arguments.join(" "), output.status, String::from_utf8_lossy(&output.stderr)))
    }

    /// The findings of `doctor`, whether it fails or not; it looks at this processor's admin listener too.
    ///
    /// # Errors
    /// If it does not run.
    pub fn doctor(&self, processor: &str) -> Result<String, String> {
        let node = self.nodes.iter().find(|node| node.name == processor).ok_or_else(|| format!("no {processor}"))?;
        let admin = format!("processor.admin={}", node.admin);
        let output = self.output(&["doctor", "--set", &admin])?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn output(&self, arguments: &[&str]) -> Result<Output, String> {
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
        tool.output().map_err(|error| error.to_string())
    }
}
