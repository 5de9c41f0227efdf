//! The rows of the fault table as small scripts: what the random nemesis cannot assert, each with its own pass line.
//! Every row ends in the comparison of all numbers, too.

#![expect(clippy::unnecessary_wraps, reason = "every script has the one type, whether it can fail or not")]

mod brokers;
mod embedded;
mod links;
mod position;
mod pressure;
mod services;
mod stores;

pub(crate) use position::rewind_group;

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::check;
use crate::load::{Load, Pace, Run};
use crate::meter::Meter;
use crate::random::{SETTLE, USERS, new_run, tell, watched};
use crate::report::Part;
use crate::run::{Options, failed};
use crate::system::{Engine, Setup, System};
use crate::watcher::Watcher;

/// One row.
pub(crate) struct Scenario {
    /// Its number in the fault table, or a word.
    row: &'static str,
    /// What is done and what must hold, besides that every number is right.
    what: &'static str,
    /// Whether it needs the binary's fail points.
    fail_points: bool,
    /// A system of its own; otherwise rows follow each other on one.
    own: Option<Own>,
    /// Does it.
    play: Script,
}

/// How a system of a row's own is set, its number of users, and the share of one of them in percent.
type Own = fn() -> (Setup, u64, u64);
type Script = fn(&mut Ring, &mut Part) -> Result<(), String>;

/// A running system with everything that watches it.
pub(crate) struct Ring {
    pub(crate) system: System,
    pub(crate) run: Arc<Run>,
    /// Until everything must be equal.
    pub(crate) settle: Duration,
    meter: Meter,
    watcher: Watcher,
    load: Option<Load>,
}

fn rows(engine: Engine) -> Vec<&'static Scenario> {
    match engine {
        Engine::Embedded => embedded::ROWS.iter().collect(),
        Engine::Kafka => [services::ROWS, position::ROWS, stores::ROWS, links::ROWS, brokers::ROWS, pressure::ROWS]
            .iter()
            .flat_map(|rows| rows.iter())
            .collect(),
    }
}

/// One row on a system of its own.
///
/// # Errors
/// Why it could not be begun.
pub fn row(engine: Engine, row: &str, options: &Options) -> Result<Part, String> {
    let found = rows(engine).into_iter().find(|scenario| scenario.row == row);
    let scenario = found.ok_or_else(|| format!("there is no row {row} of {engine}"))?;
    Ok(scenario.start(engine, options)?.play(&format!("{engine} row {row}"), scenario.what, scenario.play))
}

impl Scenario {
    fn start(&self, engine: Engine, options: &Options) -> Result<Ring, String> {
        let (setup, users, hot) = self.own.map_or_else(|| (Setup::new(engine), USERS, 0), |own| own());
        Ring::start(&setup, options, users, hot)
    }
}

/// Runs the rows of an engine that are asked for.
pub fn run(engine: Engine, options: &Options, take: &mut dyn FnMut(Part)) {
    let mut shared: Option<Ring> = None;
    for scenario in rows(engine).into_iter().filter(|scenario| options.wants(scenario.row)) {
        let name = format!("{engine} row {}", scenario.row);
        if scenario.fail_points && !options.fail_points {
            let mut part = Part::new(&name, scenario.what);
            part.unmet.push("the binary has no fail points".to_owned());
            take(part);
            continue;
        }
        let kept = if scenario.own.is_none() { shared.take() } else { None };
        let mut ring = match kept.map_or_else(|| scenario.start(engine, options), Ok) {
            Ok(ring) => ring,
            Err(why) => {
                take(failed(&name, why));
                continue;
            }
        };
        crate::say(&format!("{name}: {}", scenario.what));
        let part = ring.play(&name, scenario.what, scenario.play);
        let green = part.differences.is_empty();
        take(part);
        // What one row broke is not the next one's fault.
        if green && scenario.own.is_none() {
            shared = Some(ring);
        }
    }
}

impl Ring {
    pub(crate) fn start(setup: &Setup, options: &Options, users: u64, hot: u64) -> Result<Self, String> {
        let system = System::start(setup)?;
        let run = new_run(&system, options.seed, users, hot);
        let (meter, watcher) = (Meter::start(system.admins()), Watcher::start(&system.queries(), &run.shape));
        Ok(Self { system, run, settle: SETTLE, meter, watcher, load: None })
    }

    /// One row: the script, then everything mended and compared.
    pub(crate) fn play(&mut self, name: &str, what: &str, script: Script) -> Part {
        let (begun, mut part) = (Instant::now(), Part::new(name, what));
        if let Err(why) = script(self, &mut part) {
            part.differences.push(why);
        }
        if let Err(why) = self.system.heal().and_then(|()| self.system.wait_ready()) {
            part.differences.push(why);
        }
        self.finish_load();
        let outcome = check::settle(&mut self.system, &self.run, self.settle);
        part.must(
            outcome.differences.is_empty(),
            format!("everything equal {:.1} s after healing", outcome.took.as_secs_f64()),
        );
        part.differences.extend(outcome.differences.iter().cloned());
        tell(&mut part, &self.system, &self.run, &outcome, &self.meter);
        watched(&mut part, &self.watcher);
        part.took = begun.elapsed();
        part
    }

    /// Sends from now on until the row is over.
    pub(crate) fn send(&mut self, rate: u64) {
        self.finish_load();
        self.load = Some(Load::start(&self.run, Pace { rate, ..Pace::default() }));
    }

    pub(crate) fn finish_load(&mut self) {
        if let Some(load) = self.load.take() {
            load.finish(Duration::from_secs(30));
        }
    }

    /// Lets time pass, with the watchdog at work.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.wait_for(time, |_| false);
    }

    /// Waits until it holds; how long that took, if it did.
    pub(crate) fn wait_for(&mut self, within: Duration, mut holds: impl FnMut(&mut Self) -> bool) -> Option<Duration> {
        let begun = Instant::now();
        while begun.elapsed() < within {
            self.system.tend();
            if holds(self) {
                return Some(begun.elapsed());
            }
            thread::sleep(Duration::from_millis(50).min(within.saturating_sub(begun.elapsed())));
        }
        None
    }

    /// Events counted by all processors, as their metrics say.
    fn counted(&self) -> u64 {
        self.meter.look();
        self.meter.total("millrace_processor_counted_total", "")
    }

    /// Waits until the processors count something more; how long that took, as a fact.
    fn goes_on(&mut self, part: &mut Part, what: &str, within: Duration) {
        let before = self.counted();
        let took = self.wait_for(within, |ring| ring.counted() > before);
        let text = took.map_or_else(|| "never".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
        part.must(took.is_some(), format!("{what}: counting goes on after {text} (at most {} s)", within.as_secs()));
    }

    /// The newest numbers that reads show, as one sum; it grows when anything becomes visible.
    fn visible(&self) -> u64 {
        let answer = self.system.queries().iter().find_map(|address| {
            millrace_testkit::http_get(*address, &crate::watcher::target(self.run.shape.base_hour)).ok()
        });
        answer.as_ref().and_then(crate::watcher::counts).map_or(0, |counts| counts.clicks + counts.impressions)
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
