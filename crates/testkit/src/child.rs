//! A child process with its output in a file. It never outlives this process.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{self, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::wait_until;

/// A running child process. Dropping it kills it (`SIGKILL`) and waits for its end.
#[derive(Debug)]
pub struct Child {
    process: process::Child,
    watchdog: process::Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Child {
    /// Starts `command` with both outputs appended to the file `log`, in a process group of its own.
    ///
    /// # Errors
    /// If the file cannot be opened or the command cannot be started.
    pub fn spawn(command: &mut Command, log: &Path) -> io::Result<Self> {
        let out = File::options().create(true).append(true).open(log)?;
        let mut process =
            command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out).process_group(0).spawn().map_err(
                |error| io::Error::new(error.kind(), format!("{}: {error}", command.get_program().display())),
            )?;
        // The shell's input ends when this process ends, however it ends; then the shell kills the child.
        let watchdog = Command::new("sh")
            .args(["-c", "read -r _ || kill -9 \"$0\" 2>/dev/null", &process.id().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        match watchdog {
            Ok(watchdog) => Ok(Self { process, watchdog, log: log.to_path_buf(), ended: None }),
            Err(error) => {
                process.kill()?;
                process.wait()?;
                Err(error)
            }
        }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its whole output.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines of its output, for the message of a failure.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    /// Its exit status, once it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.process.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Waits for its end. Returns `None` if it runs longer than `within`.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        let _ = wait_until(within, || self.ended().is_some());
        self.ended
    }

    /// Kills it (`SIGKILL`) and waits until it is gone.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        if self.ended.is_none() {
            self.ended = self.process.wait().ok();
        }
    }

    /// Sends `SIGTERM`.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
    }

    /// Sends `SIGINT`.
    pub fn interrupt(&mut self) {
        self.signal(Signal::INT);
    }

    /// Freezes it (`SIGSTOP`): its connections stay open, and it does not respond.
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Resumes it (`SIGCONT`).
    pub fn thaw(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        // Once a child has been waited for, another process may have its pid.
        if self.ended().is_none()
            && let Some(pid) = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw)
        {
            // This fails only if the child has just ended, which every caller detects.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // The watchdog first, so that it cannot signal another process with a reused pid.
        let _ = self.watchdog.kill();
        let _ = self.watchdog.wait();
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directories::scratch_dir;

    fn shell(script: &str) -> Child {
        Child::spawn(Command::new("sh").args(["-c", script]), &scratch_dir("child").join("log")).unwrap()
    }

    #[test]
    fn keeps_output_and_exit_status() {
        let mut child = shell("echo out; echo err >&2; exit 3");
        assert_eq!(child.wait(Duration::from_secs(10)).and_then(|status| status.code()), Some(3));
        assert_eq!(child.log(), "out\nerr\n");
    }

    #[test]
    fn kills_a_child() {
        let mut child = shell("sleep 600");
        assert!(child.ended().is_none());
        child.kill();
        assert!(child.ended().is_some_and(|status| !status.success()));
        child.kill();
    }

    #[test]
    fn a_frozen_child_resumes_when_thawed() {
        let mut child = shell("trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done");
        assert!(wait_until(Duration::from_secs(10), || child.log().contains("ready")));
        child.freeze();
        child.terminate();
        assert!(child.ended().is_none());
        child.thaw();
        assert_eq!(child.wait(Duration::from_secs(10)).and_then(|status| status.code()), Some(7));
    }

    #[test]
    fn a_child_ends_with_the_process_that_started_it() {
        let mut child = shell("sleep 600");
        // Simulates the end of this process: the pipe closes.
        drop(child.watchdog.stdin.take());
        assert!(child.wait(Duration::from_secs(10)).is_some());
    }
}
