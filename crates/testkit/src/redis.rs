//! Redis with the settings of the local stack.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::certificates::ServerCertificate;
use crate::child::Child;
use crate::directories::{program, repository, scratch_dir};
use crate::shared::servers_wanted;
use crate::wait::{free_port, wait_until};

const START: Duration = Duration::from_secs(30);

/// A Redis of the test's own. Dropping it kills it; its data stays below `target/test-servers`.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    folder: PathBuf,
    /// The port of encrypted connections, and the files of certificate and key.
    tls: Option<(u16, [PathBuf; 2])>,
    process: Option<Child>,
}

impl Redis {
    /// Starts a server and waits until it is ready.
    ///
    /// # Errors
    /// The missing program, or why it did not start.
    pub fn start() -> Result<Self, String> {
        servers_wanted()?;
        let mut redis = Self { port: free_port(), folder: scratch_dir("redis"), tls: None, process: None };
        redis.restart()?;
        Ok(redis)
    }

    /// Starts a server that has a second port, for encrypted connections.
    ///
    /// # Errors
    /// The missing program, or why it did not start: Redis may be built without TLS.
    pub fn start_tls(certificate: &ServerCertificate) -> Result<Self, String> {
        servers_wanted()?;
        let folder = scratch_dir("redis");
        let tls = Some((free_port(), certificate.write(&folder)?));
        let mut redis = Self { port: free_port(), folder, tls, process: None };
        redis.restart()?;
        Ok(redis)
    }

    /// The URL for clients, the same after a restart.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The URL for clients that encrypt, the same after a restart.
    ///
    /// # Panics
    /// If it was not started with [`Self::start_tls`].
    pub fn tls_url(&self) -> String {
        let (port, _) = self.tls.as_ref().expect("a server with TLS");
        format!("rediss://127.0.0.1:{port}")
    }

    /// Kills the server (`SIGKILL`). Its data stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Kills the server and deletes its data: the next start is empty.
    pub fn delete_data(&mut self) {
        self.process = None;
        let _ = fs::remove_dir_all(self.folder.join("data"));
    }

    /// Freezes the server: connections stay open, and it does not respond.
    pub fn freeze(&mut self) {
        if let Some(process) = &mut self.process {
            process.freeze();
        }
    }

    /// Resumes a frozen server.
    pub fn thaw(&mut self) {
        if let Some(process) = &mut self.process {
            process.thaw();
        }
    }

    /// Kills the server if it runs, starts it on the same port and data, and waits until it is ready.
    ///
    /// # Errors
    /// Why it did not start, with the end of its log.
    pub fn restart(&mut self) -> Result<(), String> {
        self.process = None;
        let program = program("redis-server").ok_or("redis-server was not found")?;
        let data = self.folder.join("data");
        fs::create_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))?;
        let mut command = Command::new(program);
        command.arg(repository().join("deploy/native/redis.conf"));
        command.args(["--port", &self.port.to_string(), "--dir"]).arg(&data);
        if let Some((port, [certificate, key])) = &self.tls {
            command.args(["--tls-port", &port.to_string(), "--tls-auth-clients", "no"]);
            command.arg("--tls-cert-file").arg(certificate).arg("--tls-key-file").arg(key);
        }
        let mut process = Child::spawn(&mut command, &self.folder.join("log")).map_err(|error| error.to_string())?;
        let port = self.port;
        let _ = wait_until(START, || answers(port) || process.ended().is_some());
        if process.ended().is_some() || !answers(port) {
            return Err(format!("Redis did not start:\n{}", process.log_tail()));
        }
        self.process = Some(process);
        Ok(())
    }
}

/// Redis replies `PONG` once the append-only file is loaded.
fn answers(port: u16) -> bool {
    let ask = || -> std::io::Result<[u8; 5]> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| &answer == b"+PONG")
}
