//! PostgreSQL with user and database `millrace`, no password, on loopback.
//!
//! It refuses to run as root; then it runs as `postgres` or `nobody`.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::certificates::ServerCertificate;
use crate::child::Child;
use crate::directories::{program, scratch_dir};
use crate::shared::servers_wanted;
use crate::wait::{free_port, unique, wait_until};

const START: Duration = Duration::from_mins(1);

/// A PostgreSQL of the test's own. Dropping it kills it and deletes its data.
#[derive(Debug)]
pub struct Postgres {
    port: u16,
    /// The test's folder, with the log.
    folder: PathBuf,
    /// The server's folder: below the test's, unless the server's user cannot reach that.
    home: PathBuf,
    programs: PathBuf,
    /// The files of certificate and key, if it encrypts.
    tls: Option<[PathBuf; 2]>,
    process: Option<Child>,
}

impl Postgres {
    /// Creates a database, starts the server and waits until it is ready.
    ///
    /// # Errors
    /// The missing program, or why it did not start.
    pub fn start() -> Result<Self, String> {
        Self::start_with(None)
    }

    /// Creates a database and starts a server that encrypts the connections of clients that request it.
    ///
    /// # Errors
    /// The missing program, or why it did not start.
    pub fn start_tls(certificate: &ServerCertificate) -> Result<Self, String> {
        Self::start_with(Some(certificate))
    }

    fn start_with(certificate: Option<&ServerCertificate>) -> Result<Self, String> {
        servers_wanted()?;
        let initdb = program("initdb").ok_or("PostgreSQL's server programs (initdb, postgres) were not found")?;
        let programs = initdb.parent().ok_or("initdb has no folder")?.to_path_buf();
        let folder = scratch_dir("postgres");
        let home = home_below(&folder)?;
        let mut postgres = Self { port: free_port(), folder, home, programs, tls: None, process: None };
        postgres.make()?;
        postgres.tls = certificate.map(|certificate| files_of_server(certificate, &postgres.home)).transpose()?;
        postgres.restart()?;
        Ok(postgres)
    }

    /// The URL for clients, the same after a restart.
    pub fn url(&self) -> String {
        format!("postgres://millrace@127.0.0.1:{}/millrace", self.port)
    }

    /// Kills the server (`SIGKILL`). Its data stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Freezes the server's main process: new connections get no response. Its children serve those that are open.
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
        let mut words = String::new();
        // After a kill its children end a moment later, and until then it refuses to start.
        let up = wait_until(START, || match self.launch() {
            Ok(process) => {
                self.process = Some(process);
                true
            }
            Err(error) => {
                words = error;
                false
            }
        });
        if up { Ok(()) } else { Err(format!("PostgreSQL did not start:\n{words}")) }
    }

    fn launch(&self) -> Result<Child, String> {
        let mut command = as_server_user(self.programs.join("postgres"))?;
        command.current_dir("/").arg("-D").arg(self.data()).args(["-p", &self.port.to_string()]).args([
            "-clisten_addresses=127.0.0.1",
            "-cunix_socket_directories=",
            "-cmax_connections=100",
        ]);
        if let Some([certificate, key]) = &self.tls {
            command.arg("-cssl=on").arg(format!("-cssl_cert_file={}", certificate.display()));
            command.arg(format!("-cssl_key_file={}", key.display()));
        }
        let mut process = Child::spawn(&mut command, &self.folder.join("log")).map_err(|error| error.to_string())?;
        let pid = process.id().to_string();
        let _ = wait_until(START, || self.serves(&pid) || process.ended().is_some());
        if process.ended().is_none() && self.serves(&pid) { Ok(process) } else { Err(process.log_tail()) }
    }

    /// Whether the server's pid file reports `ready` for this process; a killed server leaves a file with its own pid.
    fn serves(&self, pid: &str) -> bool {
        fs::read_to_string(self.data().join("postmaster.pid")).is_ok_and(|text| {
            let line = |n| text.lines().nth(n).map(str::trim);
            line(0) == Some(pid) && line(7) == Some("ready")
        })
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    fn make(&self) -> Result<(), String> {
        let mut initdb = as_server_user(self.programs.join("initdb"))?;
        initdb.current_dir("/").arg("-D").arg(self.data());
        initdb.args(["-U", "millrace", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]);
        finish(&mut initdb, "")?;
        // Single-user mode, because psql is a package of its own.
        let mut single = as_server_user(self.programs.join("postgres"))?;
        single.current_dir("/").arg("--single").arg("-D").arg(self.data()).arg("postgres");
        finish(&mut single, "CREATE DATABASE millrace\n")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.process = None;
        let _ = fs::remove_dir_all(&self.home);
    }
}

fn finish(command: &mut Command, input: &str) -> Result<(), String> {
    let mut run = || -> std::io::Result<std::process::Output> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    };
    let output = run().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// A folder that the server's user owns and can reach.
fn home_below(folder: &Path) -> Result<PathBuf, String> {
    let Some(user) = server_user() else { return Ok(folder.to_path_buf()) };
    let home = folder.join("home");
    let reachable = fs::create_dir(&home).is_ok()
        && as_server_user("test")?.arg("-x").arg(&home).status().is_ok_and(|status| status.success());
    // Other users cannot reach a checkout in root's home.
    let home = if reachable { home } else { Path::new("/var/tmp").join(unique("millrace-postgres")) };
    fs::create_dir_all(&home)
        .and_then(|()| chown(&home, Some(user.uid), Some(user.gid)))
        .and_then(|()| fs::set_permissions(&home, fs::Permissions::from_mode(0o700)))
        .map_err(|error| format!("{}: {error}", home.display()))?;
    Ok(home)
}

/// Writes the files of a certificate, for the server's user alone: PostgreSQL refuses a key that others can read.
fn files_of_server(certificate: &ServerCertificate, home: &Path) -> Result<[PathBuf; 2], String> {
    let files = certificate.write(home)?;
    let user = server_user();
    for file in &files {
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))
            .and_then(|()| user.as_ref().map_or(Ok(()), |user| chown(file, Some(user.uid), Some(user.gid))))
            .map_err(|error| format!("{}: {error}", file.display()))?;
    }
    Ok(files)
}

struct User {
    name: String,
    uid: u32,
    gid: u32,
}

/// The user to run the server as, if this process runs as root.
fn server_user() -> Option<User> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").ok()?;
    ["postgres", "nobody"].iter().find_map(|name| {
        let fields: Vec<&str> =
            users.lines().map(|line| line.split(':').collect()).find(|fields: &Vec<&str>| fields[0] == *name)?;
        Some(User { name: (*name).to_owned(), uid: fields.get(2)?.parse().ok()?, gid: fields.get(3)?.parse().ok()? })
    })
}

/// The command as the server's user, in the same process, so that the child's pid is the server's.
fn as_server_user(command: impl AsRef<OsStr>) -> Result<Command, String> {
    if !rustix::process::geteuid().is_root() {
        return Ok(Command::new(command));
    }
    let user = server_user().ok_or("no user postgres or nobody to run PostgreSQL as")?;
    let setpriv = program("setpriv").ok_or("setpriv was not found, and PostgreSQL refuses to run as root")?;
    let mut wrapped = Command::new(setpriv);
    wrapped.args([&format!("--reuid={}", user.name), &format!("--regid={}", user.gid), "--clear-groups"]).arg(command);
    Ok(wrapped)
}
