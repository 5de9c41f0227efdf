//! CPU time of processes while something is measured, from Linux's `/proc`.

use std::str::FromStr;
use std::time::{Duration, Instant};

/// The length of a tick in `/proc`: `USER_HZ` is 100 on every architecture that this runs on.
const TICK: Duration = Duration::from_millis(10);
/// The name of this process, which sends the load and reads.
const LOAD: &str = "load";
/// The name of the sum of all other processes.
const PIPELINE: &str = "pipeline";

/// A process with its name in the output, `NAME=PID`.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    name: String,
    pid: u32,
}

impl FromStr for Process {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('=').and_then(|(name, pid)| Some((name.to_owned(), pid.parse().ok()?)));
        parsed.map(|(name, pid)| Self { name, pid }).ok_or_else(|| format!("{text} is not NAME=PID"))
    }
}

/// The CPU time of processes from now on. Includes their children: PostgreSQL has one for each connection.
pub(crate) struct Meter {
    processes: Vec<Process>,
    began: Instant,
    before: Vec<Duration>,
}

impl Meter {
    pub(crate) fn start(mut processes: Vec<Process>) -> Self {
        processes.push(Process { name: LOAD.to_owned(), pid: std::process::id() });
        let before = used_by(&processes, &stats());
        Self { processes, began: Instant::now(), before }
    }

    /// A line `CPU` for each process, and for all but the load together: name, percent of a core, µs for each of these
    /// events. No lines without `/proc`.
    pub(crate) fn lines(&self, events: usize) -> Vec<String> {
        let (now, lasted) = (used_by(&self.processes, &stats()), self.began.elapsed());
        let mut used: Vec<(&str, Duration)> = Vec::new();
        for ((process, &now), &before) in self.processes.iter().zip(&now).zip(&self.before) {
            used.push((process.name.as_str(), now.saturating_sub(before)));
        }
        let all_but_load: Duration = used.iter().filter(|(name, _)| *name != LOAD).map(|&(_, used)| used).sum();
        used.push((PIPELINE, all_but_load));
        if now.iter().all(Duration::is_zero) {
            return Vec::new();
        }
        let line = |&(name, used): &(&str, Duration)| {
            let percent = used.as_secs_f64() / lasted.as_secs_f64() * 100.0;
            let micros = used.as_secs_f64() * 1e6 / events.max(1) as f64;
            format!("CPU {name} {percent:.0} {micros:.1}")
        };
        used.iter().map(line).collect()
    }
}

/// What `/proc/PID/stat` says of a process.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    pid: u32,
    parent: u32,
    /// Ticks of user and system time.
    own: u32,
    /// Ticks of the children that have ended.
    ended: u32,
}

impl Stat {
    /// See `proc_pid_stat(5)`. The program's name is in parentheses and may contain some.
    fn parse(line: &str) -> Option<Self> {
        let pid = line.split_once(' ')?.0.parse().ok()?;
        let fields: Vec<&str> = line.rsplit_once(") ")?.1.split(' ').collect();
        let number = |index: usize| fields.get(index)?.parse::<u32>().ok();
        Some(Self { pid, parent: number(1)?, own: number(11)? + number(12)?, ended: number(13)? + number(14)? })
    }
}

/// Every process of the machine.
fn stats() -> Vec<Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let of_processes = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
    });
    // A process that has ended meanwhile has no file any more.
    of_processes.filter_map(|entry| Stat::parse(&std::fs::read_to_string(entry.path().join("stat")).ok()?)).collect()
}

/// The CPU time of each process and its children so far.
fn used_by(processes: &[Process], stats: &[Stat]) -> Vec<Duration> {
    let ticks = |process: &Process| -> u32 {
        let of = |stat: &Stat| {
            let own = stat.pid == process.pid;
            u32::from(own || stat.parent == process.pid) * stat.own + u32::from(own) * stat.ended
        };
        stats.iter().map(of).sum()
    };
    processes.iter().map(|process| TICK * ticks(process)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_a_line_of_a_program_with_parentheses() {
        let line = "42 (a) (b c) S 7 42 42 0 -1 4194560 100 200 0 0 11 12 13 14 20 0 1 0 5 6 7";
        assert_eq!(Stat::parse(line), Some(Stat { pid: 42, parent: 7, own: 23, ended: 27 }));
        assert_eq!(Stat::parse("42 (a) S 7"), None);
    }

    #[test]
    fn adds_children_to_their_parent() {
        let stat = |pid, parent, own, ended| Stat { pid, parent, own, ended };
        let stats = [stat(1, 0, 5, 3), stat(2, 1, 7, 100), stat(3, 2, 1, 0), stat(4, 0, 50, 0)];
        let process = |text: &str| text.parse::<Process>().unwrap();
        let used = used_by(&[process("broker=1"), process("store=4"), process("ended=9")], &stats);
        assert_eq!(used, [TICK * 15, TICK * 50, Duration::ZERO]);
        assert!("broker".parse::<Process>().is_err());
    }
}
