//! Checks by the system calls of one process that each acknowledgement comes after its sync, one request at a time.
//!
//! `kill -9` keeps the page cache, so a kill cannot reveal what a power failure would.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use millrace_testkit::{Child, free_port, http, http_get, millrace_bin, scratch_dir, wait_until};

const REQUESTS: u64 = 20;
const WITHIN: Duration = Duration::from_mins(1);

/// Counting a record syncs too: this delays it, so that its sync is not mistaken for that of the append.
const STALL: &str = "embedded::stage::polled=sleep(300)";

/// A traced process: its folder and its listeners.
pub(crate) struct Traced {
    /// Its journal is the folder `journal` in it.
    pub(crate) folder: PathBuf,
    /// For messages over TCP.
    pub(crate) intake: SocketAddr,
    public: SocketAddr,
    query: SocketAddr,
}

/// Traces an embedded process while it accepts single events. Returns the number of responses, and of those after a sync
/// that began and completed after the request was read.
///
/// # Errors
/// If it cannot be traced or is not ready.
pub fn answers(fail_points: &str) -> Result<(u64, u64), String> {
    let fail_points = format!("{STALL};{fail_points}");
    let calls = "fdatasync,fsync,read,recvfrom,write,writev,sendto";
    trace(&fail_points, calls, post).map(|trace| order(&trace))
}

fn post(process: &Traced) -> Result<(), String> {
    for number in 1..=REQUESTS {
        let answer = http(process.public, "POST", "/analytics?timestamp=123&user=a&click", &[], "");
        let status = answer.map_err(|error| error.to_string())?.status;
        if status != 204 {
            return Err(format!("the traced process answered {status}"));
        }
        let counted = || {
            http_get(process.query, "/analytics?timestamp=123")
                .is_ok_and(|a| a.text().contains(&format!("clicks,{number}\n")))
        };
        if !wait_until(WITHIN, counted) {
            return Err("the traced process does not count its events".to_owned());
        }
    }
    Ok(())
}

/// Traces these system calls of an embedded process during an exchange, until its stop. Returns the trace.
///
/// # Errors
/// If it cannot be traced or is not ready, or the exchange fails.
pub(crate) fn trace(
    fail_points: &str,
    calls: &str,
    exchange: impl FnOnce(&Traced) -> Result<(), String>,
) -> Result<String, String> {
    let folder = scratch_dir("synced");
    let trace = folder.join("trace");
    let [public, query, admin, intake] = [(); 4].map(|()| SocketAddr::from(([127, 0, 0, 1], free_port())));
    let mut command = Command::new("strace");
    // -D: the traced process is the child, so that a signal to the child, and its end, are the traced process's.
    command.args(["-D", "-f", "-q", "-y", "-s", "48", "-e", &format!("trace={calls}"), "-o"]);
    command.arg(&trace).arg(millrace_bin()).arg("up").current_dir(&folder).env("FAILPOINTS", fail_points);
    for setting in [
        format!("embedded.directory={}", folder.join("data").display()),
        "embedded.min_free_disk=1MiB".to_owned(),
        format!("command.listen={public}"),
        format!("query.listen={query}"),
        format!("command.admin={admin}"),
        format!("command.tcp.listen={intake}"),
        format!("journal.directory={}", folder.join("journal").display()),
    ] {
        command.args(["--set", &setting]);
    }
    let mut child = Child::spawn(&mut command, &folder.join("log")).map_err(|error| error.to_string())?;
    let ready = || http_get(admin, "/readyz").is_ok_and(|answer| answer.status == 200);
    if !wait_until(WITHIN, ready) {
        return Err(format!("the traced process is not ready:\n{}", child.log_tail()));
    }
    exchange(&Traced { folder, intake, public, query })?;
    child.terminate();
    child.wait(Duration::from_secs(15));
    drop(child);
    let mut text = String::new();
    // strace writes the end of the last thread once it has written everything else.
    let whole = wait_until(WITHIN, || {
        text = fs::read_to_string(&trace).unwrap_or_default();
        text.trim_end().ends_with("+++")
    });
    if whole { Ok(text) } else { Err(format!("{} has no end", trace.display())) }
}

/// Counts the responses with 204, and those with a complete sync since the last POST was read.
fn order(trace: &str) -> (u64, u64) {
    let (mut answers, mut after_sync) = (0, 0);
    // Only syncs of the journal: no other file makes a record durable.
    let (mut begun, mut synced) = (BTreeSet::new(), false);
    for line in trace.lines() {
        let thread = line.split_whitespace().next().unwrap_or_default();
        let is_sync = line.contains("fdatasync") || line.contains("fsync");
        if line.contains("\"POST /analytics") {
            begun.clear();
            synced = false;
        } else if is_sync && line.contains(".jnl>") {
            begun.insert(thread);
            synced |= line.ends_with("= 0");
        } else if is_sync && line.contains("resumed>") && begun.remove(thread) {
            synced |= line.ends_with("= 0");
        } else if line.contains("\"HTTP/1.1 204") {
            answers += 1;
            after_sync += u64::from(synced);
            synced = false;
        }
    }
    (answers, after_sync)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_a_sync_between_request_and_response() {
        let trace = "7 read(9, \"POST /analytics\", 8192) = 60\n\
                     8 fdatasync(5</d/0.jnl> <unfinished ...>\n\
                     8 <... fdatasync resumed>) = 0\n\
                     7 writev(9, [{iov_base=\"HTTP/1.1 204 No Content\"}], 1) = 99\n\
                     7 read(9, \"POST /analytics\", 8192) = 60\n\
                     7 writev(9, [{iov_base=\"HTTP/1.1 204 No Content\"}], 1) = 99\n\
                     8 fdatasync(5</d/0.jnl>) = 0\n\
                     7 read(9, \"POST /analytics\", 8192) = 60\n\
                     8 fdatasync(5</d/0.jnl>) = -1 EIO\n\
                     8 fdatasync(6</d/synced>) = 0\n\
                     7 writev(9, [{iov_base=\"HTTP/1.1 204 No Content\"}], 1) = 99\n";
        assert_eq!(order(trace), (3, 1));
    }
}
