//! What `make faults` does, by its variables.

use std::env;
use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_testkit::{millrace_bin, target_dir};

use crate::load::Pace;
use crate::random::{Random, random};
use crate::report::{Part, markdown};
use crate::system::{Engine, Setup};
use crate::{controls, say, scenarios};

/// The variables of a run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides every event and every fault.
    pub seed: u64,
    /// Which engines.
    pub engines: Vec<Engine>,
    /// Length of a random run.
    pub length: Duration,
    /// Parts to run; empty for all.
    pub only: Vec<String>,
    /// Whether the binary has fail points.
    pub fail_points: bool,
}

impl Options {
    /// From `SEED`, `ENGINE`, `SECONDS`, `ONLY` and `CONTROLS`; `SECONDS` may be the first argument instead, because shells
    /// count in a variable of that name.
    ///
    /// # Errors
    /// The variable that is wrong, and what is allowed.
    pub fn from_env() -> Result<Self, String> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let number = |name: &str, default: u64| match variable(name) {
            None => Ok(default),
            Some(text) => text.parse().map_err(|_| format!("{name}={text}: allowed is a whole number")),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let engines = match variable("ENGINE").as_deref() {
            None | Some("both") => vec![Engine::Embedded, Engine::Kafka],
            Some("embedded") => vec![Engine::Embedded],
            Some("kafka") => vec![Engine::Kafka],
            Some(other) => return Err(format!("ENGINE={other}: allowed are kafka, embedded and both")),
        };
        let mut only: Vec<String> =
            variable("ONLY").iter().flat_map(|text| text.split(',')).map(|word| word.trim().to_owned()).collect();
        if variable("CONTROLS").as_deref() == Some("1") {
            only.push("controls".to_owned());
        }
        let seconds = match env::args().nth(1).filter(|text| !text.is_empty()) {
            Some(text) => text.parse().map_err(|_| format!("SECONDS={text}: allowed is a whole number"))?,
            None => number("SECONDS", 300)?,
        };
        let length = Duration::from_secs(seconds);
        Ok(Self { seed: number("SEED", now)?, engines, length, only, fail_points: has_fail_points() })
    }

    /// Whether this part is to be run.
    pub fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|word| word == part)
    }
}

/// Whether the binary under test was built with fail points: only then it minds a broken order to crash.
pub fn has_fail_points() -> bool {
    let mut probe = Command::new(millrace_bin());
    probe.args(["check-config", "--print-default"]).env("MILLRACE_CRASH", "broken");
    probe.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    probe.status().is_ok_and(|status| !status.success())
}

/// Runs everything that is asked for; success if all of it is green.
pub fn main() -> ExitCode {
    let options = match Options::from_env() {
        Ok(options) => options,
        Err(why) => {
            say(&why);
            return ExitCode::from(64);
        }
    };
    let heading = heading(&options);
    say(&heading);
    let begun = Instant::now();
    let mut parts: Vec<Part> = Vec::new();
    let mut take = |part: Part| {
        part.print();
        parts.push(part);
    };
    for &engine in &options.engines {
        scenarios::run(engine, &options, &mut take);
        if options.wants("random") {
            let plan = Random {
                setup: Setup::new(engine),
                seed: options.seed,
                length: options.length,
                pace: Pace::default(),
                fail_points: options.fail_points,
            };
            let name = format!("{engine} random, seed {}", options.seed);
            take(random(&name, &plan).unwrap_or_else(|why| failed(&name, why)));
        }
        if options.wants("controls") {
            controls::run(engine, &options, &mut take);
        }
    }
    let green = parts.iter().all(Part::is_green) && !parts.is_empty();
    let folder = target_dir().join("faults");
    let file = folder.join("report.md");
    let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&file, markdown(&heading, &parts)));
    let red = parts.iter().filter(|part| !part.is_green()).count();
    say(&format!("\n{} parts in {:.0} s, {red} of them not good", parts.len(), begun.elapsed().as_secs_f64()));
    match written {
        Ok(()) => say(&format!("report: {}", file.display())),
        Err(error) => say(&format!("the report cannot be written: {}: {error}", file.display())),
    }
    if green { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A part that could not be run.
pub(crate) fn failed(name: &str, why: String) -> Part {
    let mut part = Part::new(name, "Could not be run.");
    part.differences.push(why);
    part
}

fn heading(options: &Options) -> String {
    let version = Command::new(millrace_bin()).arg("--version").output();
    let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let engines: Vec<String> = options.engines.iter().map(ToString::to_string).collect();
    let (cores, points) = (std::thread::available_parallelism().map_or(0, usize::from), options.fail_points);
    format!(
        "SEED={} ENGINE={} SECONDS={}, {version}, fail points {}, {cores} processors",
        options.seed,
        engines.join(" and "),
        options.length.as_secs(),
        if points { "on" } else { "off" },
    )
}
