//! Runs everything that `make faults` selects, and writes the report.

use std::fs;
use std::process::{Command, ExitCode};
use std::time::Instant;

use millrace_testkit::{millrace_bin, target_dir};

use crate::load::Pace;
use crate::options::Options;
use crate::random::{RandomRun, random};
use crate::report::{Part, markdown};
use crate::system::Setup;
use crate::{controls, print, scenarios};

/// Runs the selected parts; succeeds if all of them are green.
pub fn main() -> ExitCode {
    let options = match Options::from_env() {
        Ok(options) => options,
        Err(why) => {
            print(&why);
            return ExitCode::from(64);
        }
    };
    let heading = heading(&options);
    print(&heading);
    let begun = Instant::now();
    let mut parts: Vec<Part> = Vec::new();
    let mut take = |part: Part| {
        part.print();
        parts.push(part);
    };
    for &engine in &options.engines {
        scenarios::run(engine, &options, &mut take);
        if options.wants("random") {
            let plan = RandomRun {
                setup: Setup::new(engine),
                seed: options.seed,
                length: options.length,
                pace: Pace::default(),
                fail_points: options.fail_points,
            };
            let name = format!("{engine} random, seed {}", options.seed);
            take(random(&name, &plan).unwrap_or_else(|why| Part::failed(&name, why)));
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
    print(&format!("\n{} parts in {:.0} s, {red} of them not green", parts.len(), begun.elapsed().as_secs_f64()));
    match written {
        Ok(()) => print(&format!("report: {}", file.display())),
        Err(error) => print(&format!("the report cannot be written: {}: {error}", file.display())),
    }
    if green { ExitCode::SUCCESS } else { ExitCode::FAILURE }
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
