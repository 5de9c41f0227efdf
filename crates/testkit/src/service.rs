//! The `millrace` binary under test.

use std::env;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use crate::child::Child;
use crate::directories::{profile_dir, repository, scratch_dir, target_dir};
use crate::http::http_get;
use crate::wait::wait_until;

const READY: Duration = Duration::from_mins(1);

/// The binary under test: `MILLRACE_BIN`, else the one beside the running test binary; builds it if it does not exist.
///
/// Cargo builds it before it runs the tests of the whole workspace. Tests of a single crate use the latest build.
///
/// # Panics
/// If the build fails.
pub fn millrace_bin() -> PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY
        .get_or_init(|| {
            if let Some(named) = env::var_os("MILLRACE_BIN") {
                return PathBuf::from(named);
            }
            let profile = profile_dir().unwrap_or_else(|| target_dir().join("debug"));
            let binary = profile.join("millrace");
            if !binary.is_file() {
                let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                // The whole workspace, so that dependencies have the features of the tests and nothing is built twice.
                cargo.args(["build", "--locked", "--workspace", "--bin", "millrace"]);
                if profile.ends_with("release") {
                    cargo.arg("--release");
                }
                let built = cargo.current_dir(repository()).stdin(Stdio::null()).status();
                assert!(built.is_ok_and(|status| status.success()), "millrace cannot be built for the test");
            }
            binary
        })
        .clone()
}

/// One running `millrace` process. Dropping it kills it.
#[derive(Debug)]
pub struct Service {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    folder: PathBuf,
    process: Option<Child>,
    logs: Vec<String>,
}

impl Service {
    /// Starts `millrace <subcommand> --set key=value …` without the `MILLRACE_*` variables of the test's environment.
    ///
    /// # Panics
    /// If the process cannot be started.
    pub fn start(subcommand: &str, settings: &[(&str, &str)]) -> Self {
        Self::start_with(subcommand, settings, &[])
    }

    /// As [`Self::start`], with variables for the first start.
    ///
    /// # Panics
    /// If the process cannot be started.
    pub fn start_with(subcommand: &str, settings: &[(&str, &str)], variables: &[(&str, &str)]) -> Self {
        let mut arguments = vec![subcommand.to_owned()];
        // Most tests have no use of the listener, and its port is one for all.
        if !settings.iter().any(|(key, _)| key.starts_with("command.tcp.")) {
            arguments.extend(["--set".to_owned(), "command.tcp.enabled=false".to_owned()]);
        }
        for (key, value) in settings {
            arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        let folder = scratch_dir(&format!("millrace-{subcommand}"));
        let mut service = Self { arguments, environment: Vec::new(), folder, process: None, logs: Vec::new() };
        service.set_environment(variables);
        service.restart();
        service
    }

    /// Sets the variables of the next starts; replaces those of an earlier call.
    pub fn set_environment(&mut self, variables: &[(&str, &str)]) {
        self.environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    }

    /// Kills the process if it runs and starts it again with the same arguments.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new(millrace_bin());
        command.args(&self.arguments).current_dir(&self.folder);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("MILLRACE_") {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().cloned());
        let log = self.folder.join(format!("log-{}", self.logs.len() + 1));
        self.process = Some(Child::spawn(&mut command, &log).unwrap_or_else(|error| panic!("millrace: {error}")));
    }

    /// Waits until `GET /readyz` at this address returns 200.
    ///
    /// # Panics
    /// If the process ends, or is not ready within a minute; with the end of its log.
    pub fn wait_ready(&mut self, address: SocketAddr) {
        let Some(process) = &mut self.process else { panic!("millrace {} is not running", self.arguments[0]) };
        let ready = || http_get(address, "/readyz").is_ok_and(|response| response.status == 200);
        // Once is enough: a member of a group that gets its partitions in a second rebalance is ready before it, too.
        let mut was_ready = false;
        let _ = wait_until(READY, || {
            was_ready = ready();
            was_ready || process.ended().is_some()
        });
        if let Some(status) = process.ended() {
            panic!("millrace {} ended, {status}:\n{}", self.arguments[0], process.log_tail());
        }
        let (name, log) = (&self.arguments[0], process.log_tail());
        assert!(was_ready, "{name} is not ready at {address}: {:?}\n{log}", http_get(address, "/readyz"));
    }

    /// The process id, while one runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// Kills the process (`SIGKILL`), if it runs.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill();
            self.logs.push(process.log());
        }
    }

    /// Sends `SIGTERM` and waits. Returns `None` if the process does not end in time; then kills it.
    pub fn shut_down(&mut self, within: Duration) -> Option<ExitStatus> {
        let process = self.process.as_mut()?;
        process.terminate();
        let status = process.wait(within);
        self.kill();
        status
    }

    /// The running process, for other signals and waits.
    pub fn process(&mut self) -> Option<&mut Child> {
        self.process.as_mut()
    }

    /// Freezes the process (`SIGSTOP`).
    pub fn freeze(&mut self) {
        if let Some(process) = &mut self.process {
            process.freeze();
        }
    }

    /// Resumes a frozen process (`SIGCONT`).
    pub fn thaw(&mut self) {
        if let Some(process) = &mut self.process {
            process.thaw();
        }
    }

    /// The output of all its processes so far.
    pub fn log(&self) -> String {
        let mut log = self.logs.concat();
        log.push_str(&self.process.as_ref().map(Child::log).unwrap_or_default());
        log
    }
}
