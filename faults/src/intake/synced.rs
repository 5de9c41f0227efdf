//! Checks by the system calls of one process that the journal's position moves only behind synced bytes. `kill -9` keeps the
//! page cache, so a kill cannot reveal a missing sync.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use millrace_testkit::wait_until;

use super::files::read;
use crate::synced::{Traced, trace};

const MESSAGES: usize = 20;
const WITHIN: Duration = Duration::from_mins(1);
const POSITION: &str = "journal.position";

/// Traces an embedded process while it takes single messages. Returns the number of writes to the journal, and of those
/// before which everything that they rest on was synced.
///
/// # Errors
/// If it cannot be traced or is not ready.
pub(crate) fn journal_writes(fail_points: &str) -> Result<(u64, u64), String> {
    trace(fail_points, "fdatasync,fsync,pwrite64", send).map(|trace| order(&trace))
}

fn send(process: &Traced) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("a message over TCP: {error}");
    let mut stream = TcpStream::connect(process.intake).map_err(failed)?;
    stream.set_read_timeout(Some(WITHIN)).map_err(failed)?;
    let mut replies = BufReader::new(stream.try_clone().map_err(failed)?);
    for number in 1..=MESSAGES {
        stream.write_all(format!("a {number} 1\nx\n").as_bytes()).map_err(failed)?;
        let mut reply = String::new();
        replies.read_line(&mut reply).map_err(failed)?;
        if reply != format!("ACK {number}\n") {
            return Err(format!("the traced process answered {reply:?}"));
        }
        let directory = process.folder.join("journal");
        let written = || read(&directory).is_ok_and(|journal| journal.lines.len() == number);
        if !wait_until(WITHIN, written) {
            return Err("the traced process does not write its journal".to_owned());
        }
    }
    Ok(())
}

/// Counts the writes to segments, indexes and the position; and those of the position with nothing else unsynced, and of
/// the others with a synced position.
fn order(trace: &str) -> (u64, u64) {
    let (mut writes, mut ordered) = (0, 0);
    let mut unsynced: BTreeSet<&str> = BTreeSet::new();
    // By thread: the file that it is syncing.
    let mut syncing: BTreeMap<&str, &str> = BTreeMap::new();
    for line in trace.lines() {
        let thread = line.split_whitespace().next().unwrap_or_default();
        if line.contains("pwrite64(") {
            let Some(file) = journal_file(line) else { continue };
            let on_position = unsynced.contains(POSITION);
            let on_others = unsynced.iter().any(|file| *file != POSITION);
            writes += 1;
            ordered += u64::from(!if file == POSITION { on_others } else { on_position });
            unsynced.insert(file);
        } else if line.contains("sync resumed>") {
            if let Some(file) = syncing.remove(thread).filter(|_| line.ends_with("= 0")) {
                unsynced.remove(file);
            }
        } else if line.contains("sync(") {
            let Some(file) = journal_file(line) else { continue };
            if line.ends_with("<unfinished ...>") {
                syncing.insert(thread, file);
            } else if line.ends_with("= 0") {
                unsynced.remove(file);
            }
        }
    }
    (writes, ordered)
}

/// The file of the journal that a call is for.
fn journal_file(line: &str) -> Option<&str> {
    let path = line.split_once('<')?.1.split_once('>')?.0;
    let file = path.rsplit_once("/journal/")?.1;
    let extension = file.rsplit_once('.').map(|(_, extension)| extension);
    (file == POSITION || matches!(extension, Some("log" | "idx"))).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_writes_behind_a_completed_sync() {
        let synced = "7 pwrite64(5</d/journal/0.log>, \"x\", 1, 0) = 1\n\
                      7 fdatasync(5</d/journal/0.log> <unfinished ...>\n\
                      8 fdatasync(9</d/data/0.jnl>) = 0\n\
                      7 <... fdatasync resumed>) = 0\n\
                      7 pwrite64(6</d/journal/journal.position>, \"x\", 1, 0) = 1\n\
                      7 fdatasync(6</d/journal/journal.position>) = 0\n\
                      7 pwrite64(5</d/journal/0.log>, \"x\", 1, 1) = 1\n";
        assert_eq!(order(synced), (3, 3));
        let position = "7 pwrite64(6</d/journal/journal.position>, \"x\", 1, 0) = 1\n";
        assert_eq!(order(&format!("{synced}{position}")), (4, 3), "the segment is not synced");
        assert_eq!(order(&format!("{position}{synced}")), (4, 3), "the position is not synced");
        let failed = "7 fdatasync(5</d/journal/0.log>) = -1 EIO\n";
        assert_eq!(order(&format!("{synced}{failed}{position}")), (4, 3));
    }
}
