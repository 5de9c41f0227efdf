//! What `/proc` has of a process: its CPU time, memory and sockets.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

/// Ticks a second of the times in `/proc`: `USER_HZ`, the same on every architecture that Rust has servers on.
const TICKS: u64 = 100;

/// A process of this machine.
#[derive(Debug, Clone)]
pub(crate) struct Process(PathBuf);

impl Process {
    pub(crate) fn new(id: u32) -> Self {
        Self(PathBuf::from(format!("/proc/{id}")))
    }

    fn text(&self, name: &str) -> anyhow::Result<String> {
        std::fs::read_to_string(self.0.join(name)).with_context(|| format!("{}/{name}", self.0.display()))
    }

    /// User and system time so far.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        cpu(&self.text("stat")?).context("no times in /proc")
    }

    /// Resident memory in KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<u64> {
        resident_kib(&self.text("status")?).context("no memory in /proc")
    }

    /// Sockets that are open.
    pub(crate) fn sockets(&self) -> anyhow::Result<usize> {
        let files = std::fs::read_dir(self.0.join("fd"))?.filter_map(Result::ok);
        let targets = files.filter_map(|file| std::fs::read_link(file.path()).ok());
        Ok(targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count())
    }
}

fn cpu(stat: &str) -> Option<Duration> {
    // The name before the parenthesis may have spaces.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Duration::from_millis((ticks(11)? + ticks(12)?) * 1_000 / TICKS))
}

fn resident_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let stat = "42 (a (b) c) S 1 42 42 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 9 0 1 1 1";
        assert_eq!(cpu(stat), Some(Duration::from_secs(3)));
        assert_eq!(cpu("42 (a"), None);
        assert_eq!(resident_kib("VmHWM:\t 9 kB\nVmRSS:\t    1234 kB\n"), Some(1_234));
    }
}
