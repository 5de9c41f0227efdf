//! Apache Kafka: one KRaft node with the settings of the local stack.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::child::Child;
use crate::directories::{java, kafka_home, repository, scratch_dir};
use crate::shared::servers_wanted;
use crate::wait::{free_port, wait_until};

/// The settings of the local stack, so that tests and `make` run the same broker.
const SETTINGS: &str = include_str!("../../../deploy/native/kafka.properties");
/// Any 16 bytes in base64 do.
const CLUSTER_ID: &str = "bWlsbHJhY2UtbG9jYWwtMQ";
const START: Duration = Duration::from_secs(90);

/// A broker of the test's own. Dropping it kills it; its data stays below `target/test-servers`.
#[derive(Debug)]
pub struct Kafka {
    port: u16,
    folder: PathBuf,
    process: Option<Child>,
    starts: u32,
}

impl Kafka {
    /// Starts a broker and waits until it is ready.
    ///
    /// # Errors
    /// The missing program, or why it did not start.
    pub fn start() -> Result<Self, String> {
        Self::start_with(&[])
    }

    /// Starts a broker with further settings, which override the stack's.
    ///
    /// # Errors
    /// The missing program, or why it did not start.
    pub fn start_with(settings: &[(&str, &str)]) -> Result<Self, String> {
        let mut kafka = Self::prepare(free_port(), free_port(), settings, &[])?;
        kafka.restart()?;
        Ok(kafka)
    }

    /// Formats the storage of a broker with further options of the tool. The broker is then ready to launch.
    pub(crate) fn prepare(
        port: u16,
        controller: u16,
        settings: &[(&str, &str)],
        options: &[&str],
    ) -> Result<Self, String> {
        servers_wanted()?;
        let folder = scratch_dir("kafka");
        let mut text = format!(
            "{SETTINGS}listeners=CLIENT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=CLIENT://127.0.0.1:{port}\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             log.dirs={}\n",
            folder.join("data").display()
        );
        for (key, value) in settings {
            // In a properties file, the last line of a key applies.
            let _ = writeln!(text, "{key}={value}");
        }
        fs::write(folder.join("server.properties"), text).map_err(|error| format!("{}: {error}", folder.display()))?;
        let kafka = Self { port, folder, process: None, starts: 0 };
        let format = kafka
            .java("log4j2-tools.xml", "128m")?
            .args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"])
            .arg(kafka.folder.join("server.properties"))
            .args(options)
            .output()
            .map_err(|error| format!("java: {error}"))?;
        if !format.status.success() {
            return Err(format!("Kafka's storage was not formatted: {}", String::from_utf8_lossy(&format.stderr)));
        }
        Ok(kafka)
    }

    /// The bootstrap address for clients, `127.0.0.1:port`, the same after a restart.
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The folder of its log: a folder for each partition.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Kills the broker (`SIGKILL`). Its data stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Shuts the broker down (`SIGTERM`); kills it if that takes longer than 30 s.
    pub fn shut_down(&mut self) {
        if let Some(process) = &mut self.process {
            process.terminate();
            process.wait(Duration::from_secs(30));
        }
        self.process = None;
    }

    /// Freezes the broker: connections stay open, and it does not respond.
    pub fn freeze(&mut self) {
        if let Some(process) = &mut self.process {
            process.freeze();
        }
    }

    /// Resumes a frozen broker.
    pub fn thaw(&mut self) {
        if let Some(process) = &mut self.process {
            process.thaw();
        }
    }

    /// Kills the broker if it runs, starts it on the same port and data, and waits until it is ready.
    ///
    /// # Errors
    /// Why it did not start, with the end of its log.
    pub fn restart(&mut self) -> Result<(), String> {
        self.launch()?;
        self.wait_started()
    }

    /// Kills the broker if it runs and starts it without waiting: one of several is ready only with others.
    pub(crate) fn launch(&mut self) -> Result<(), String> {
        self.process = None;
        self.starts += 1;
        let log = self.folder.join(format!("broker-{}.log", self.starts));
        let mut command = self.java("log4j2.xml", "512m")?;
        command.arg("kafka.Kafka").arg(self.folder.join("server.properties"));
        self.process = Some(Child::spawn(&mut command, &log).map_err(|error| error.to_string())?);
        Ok(())
    }

    pub(crate) fn wait_started(&mut self) -> Result<(), String> {
        let Some(process) = &mut self.process else { return Err("the broker was not launched".to_owned()) };
        let _ = wait_until(START, || process.log().contains("Kafka Server started") || process.ended().is_some());
        if process.ended().is_none() && process.log().contains("Kafka Server started") {
            return Ok(());
        }
        let words = process.log_tail();
        self.process = None;
        Err(format!("Kafka did not start; {}:\n{words}", self.folder.display()))
    }

    /// The log of the running broker.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Child::log).unwrap_or_default()
    }

    fn java(&self, logging: &str, heap: &str) -> Result<Command, String> {
        let mut command = Command::new(java()?);
        command
            .current_dir(&self.folder)
            .arg(format!("-Xmx{heap}"))
            .arg(format!("-Dlog4j2.configurationFile={}", repository().join("deploy/native").join(logging).display()))
            .arg("-cp")
            .arg(kafka_home()?.join("libs/*"));
        Ok(command)
    }
}
