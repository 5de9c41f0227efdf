//! One instance of a service: the target of the nemesis, with a watchdog that restarts it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use millrace_testkit::Service;

/// The interval between two starts by the watchdog.
const BETWEEN: Duration = Duration::from_millis(500);

/// The state that the nemesis sets for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Running,
    Frozen,
    Down,
}

/// One instance of a service.
#[derive(Debug)]
pub struct Node {
    /// `processor-1`.
    pub name: String,
    /// `processor`.
    pub role: &'static str,
    /// The admin listener: health and metrics.
    pub admin: SocketAddr,
    /// The public listeners by service; the embedded engine has both in one process.
    pub listeners: Vec<(&'static str, SocketAddr)>,
    /// The unexpected exits: status and reason.
    pub ends: Vec<String>,
    service: Service,
    /// Variables of every start.
    always: Vec<(String, String)>,
    target: Target,
    started: Instant,
}

impl Node {
    pub(crate) fn new(
        name: String,
        role: &'static str,
        service: Service,
        always: Vec<(String, String)>,
        admin: SocketAddr,
        listeners: Vec<(&'static str, SocketAddr)>,
    ) -> Self {
        let (ends, target, started) = (Vec::new(), Target::Running, Instant::now());
        Self { name, role, admin, listeners, ends, service, always, target, started }
    }

    fn launch(&mut self, variables: &[(&str, &str)]) {
        let always = self.always.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let all: Vec<(&str, &str)> = always.chain(variables.iter().copied()).collect();
        self.service.set_environment(&all);
        self.service.restart();
        self.started = Instant::now();
        self.target = Target::Running;
    }

    /// Restarts it after an unexpected exit.
    pub(crate) fn tend(&mut self) {
        if self.target != Target::Running || self.started.elapsed() < BETWEEN {
            return;
        }
        let Some(process) = self.service.process() else { return };
        if let Some(status) = process.ended() {
            let log = process.log();
            let why = log.lines().rev().find(|line| line.starts_with("millrace: ")).unwrap_or_default();
            self.ends.push(format!("{status} {why}").trim().to_owned());
            self.launch(&[]);
        }
    }

    /// `SIGKILL`; it stays down until [`Node::start`].
    pub fn kill(&mut self) {
        self.service.kill();
        self.target = Target::Down;
    }

    /// Starts it if it is down.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts it if it is down, with these variables, which later starts by the watchdog do not have.
    pub fn start_with(&mut self, variables: &[(&str, &str)]) {
        if self.target == Target::Down {
            self.launch(variables);
        }
    }

    /// Sends `SIGTERM` and returns the exit status; kills it after `within`. It stays down.
    pub fn terminate(&mut self, within: Duration) -> Option<std::process::ExitStatus> {
        self.target = Target::Down;
        self.service.shut_down(within)
    }

    /// Sends `SIGTERM` and does not wait.
    pub fn signal_terminate(&mut self) {
        self.service.process().into_iter().for_each(millrace_testkit::Child::terminate);
    }

    /// `SIGSTOP`.
    pub fn freeze(&mut self) {
        if self.target == Target::Running {
            self.service.freeze();
            self.target = Target::Frozen;
        }
    }

    /// `SIGCONT`.
    pub fn thaw(&mut self) {
        if self.target == Target::Frozen {
            self.service.thaw();
            self.target = Target::Running;
        }
    }

    /// Whether its process runs.
    pub fn is_running(&mut self) -> bool {
        self.service.process().is_some_and(|process| process.ended().is_none())
    }

    /// The exit status of its last process, once that has ended.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.service.process().and_then(millrace_testkit::Child::ended)
    }

    /// Turns off the watchdog until the next start.
    pub fn leave_down(&mut self) {
        self.target = Target::Down;
    }

    /// The variables of every start.
    pub(crate) fn environment(&self) -> &[(String, String)] {
        &self.always
    }

    /// The process id.
    pub fn id(&self) -> Option<u32> {
        self.service.id()
    }

    /// The last lines of its log.
    pub fn log_tail(&mut self) -> String {
        self.service.process().map(|process| process.log_tail()).unwrap_or_default()
    }

    /// The log of all its processes.
    pub fn log(&self) -> String {
        self.service.log()
    }
}
