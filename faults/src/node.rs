//! One instance of a service: what the nemesis does to it, and what its watchdog sees.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use millrace_testkit::Service;

/// Between two starts by the watchdog.
const BETWEEN: Duration = Duration::from_millis(500);

/// What the nemesis wants of a node.
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
    /// Health and metrics.
    pub admin: SocketAddr,
    /// Public listeners by the service that listens: both of them in one process on the embedded engine.
    pub listeners: Vec<(&'static str, SocketAddr)>,
    /// How it ended each time that nobody had asked it to.
    pub ends: Vec<String>,
    service: Service,
    /// Variables of every start.
    always: Vec<(String, String)>,
    wanted: Target,
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
        let (ends, wanted, started) = (Vec::new(), Target::Running, Instant::now());
        Self { name, role, admin, listeners, ends, service, always, wanted, started }
    }

    fn launch(&mut self, variables: &[(&str, &str)]) {
        let always = self.always.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let all: Vec<(&str, &str)> = always.chain(variables.iter().copied()).collect();
        self.service.set_environment(&all);
        self.service.restart();
        self.started = Instant::now();
        self.wanted = Target::Running;
    }

    /// Starts it again if it ended without being asked to.
    pub(crate) fn tend(&mut self) {
        if self.wanted != Target::Running || self.started.elapsed() < BETWEEN {
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
        self.wanted = Target::Down;
    }

    /// Starts it if it is down.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts it if it is down, with these variables; the watchdog's later starts do without.
    pub fn start_with(&mut self, variables: &[(&str, &str)]) {
        if self.wanted == Target::Down {
            self.launch(variables);
        }
    }

    /// `SIGTERM`, and its status if it ends within `within`; else it is killed. It stays down.
    pub fn terminate(&mut self, within: Duration) -> Option<std::process::ExitStatus> {
        self.wanted = Target::Down;
        self.service.shut_down(within)
    }

    /// `SIGTERM`, and nothing else.
    pub fn signal_terminate(&mut self) {
        self.service.process().into_iter().for_each(millrace_testkit::Child::terminate);
    }

    /// `SIGSTOP`.
    pub fn freeze(&mut self) {
        if self.wanted == Target::Running {
            self.service.freeze();
            self.wanted = Target::Frozen;
        }
    }

    /// `SIGCONT`.
    pub fn thaw(&mut self) {
        if self.wanted == Target::Frozen {
            self.service.thaw();
            self.wanted = Target::Running;
        }
    }

    /// Whether a process of it runs.
    pub fn is_running(&mut self) -> bool {
        self.service.process().is_some_and(|process| process.ended().is_none())
    }

    /// How its present process ended, if it did.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.service.process().and_then(millrace_testkit::Child::ended)
    }

    /// Leaves it alone when it ends: a scenario looks after it.
    pub fn leave_down(&mut self) {
        self.wanted = Target::Down;
    }

    /// The process id.
    pub fn id(&self) -> Option<u32> {
        self.service.id()
    }

    /// The last lines of its log.
    pub fn last_words(&mut self) -> String {
        self.service.process().map(|process| process.last_words()).unwrap_or_default()
    }

    /// Everything its processes logged.
    pub fn log(&self) -> String {
        self.service.log()
    }
}
