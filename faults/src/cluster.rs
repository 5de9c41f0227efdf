//! A cluster under test: the system, its load, and everything that watches it. Scenarios and controls act on it.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use millrace_testkit::http_get;

use crate::check;
use crate::load::{Load, Pace, Run};
use crate::meter::Meter;
use crate::options::Options;
use crate::random::{SETTLE, new_run, report_reads, report_run};
use crate::report::Part;
use crate::system::{Setup, System};
use crate::watcher::{Watcher, counts, target};

/// What a scenario or a control does to the cluster.
pub(crate) type Script = fn(&mut Cluster, &mut Part) -> Result<(), String>;

/// A running system with its load, metrics and readers.
pub(crate) struct Cluster {
    pub(crate) system: System,
    pub(crate) run: Arc<Run>,
    /// The longest wait until every number is equal.
    pub(crate) settle: Duration,
    pub(crate) meter: Meter,
    pub(crate) watcher: Watcher,
    load: Option<Load>,
}

impl Cluster {
    pub(crate) fn start(setup: &Setup, options: &Options, users: u64, hot: u64) -> Result<Self, String> {
        let system = System::start(setup)?;
        let run = new_run(&system, options.seed, users, hot);
        let (meter, watcher) = (Meter::start(system.admins()), Watcher::start(&system.queries(), &run.shape));
        Ok(Self { system, run, settle: SETTLE, meter, watcher, load: None })
    }

    /// Runs a script, then repairs and compares everything.
    pub(crate) fn play(&mut self, name: &str, what: &str, script: Script) -> Part {
        let (begun, mut part) = (Instant::now(), Part::new(name, what));
        if let Err(why) = script(self, &mut part) {
            part.differences.push(why);
        }
        if let Err(why) = self.system.repair_all().and_then(|()| self.system.wait_ready()) {
            part.differences.push(why);
        }
        self.finish_load();
        let outcome = check::settle(&mut self.system, &self.run, self.settle);
        part.must(
            outcome.differences.is_empty(),
            format!("everything equal {:.1} s after the repair", outcome.took.as_secs_f64()),
        );
        part.differences.extend(outcome.differences.iter().cloned());
        report_run(&mut part, &self.system, &self.run, &outcome, &self.meter);
        report_reads(&mut part, &self.watcher);
        part.took = begun.elapsed();
        part
    }

    /// Sends events from now on until the script is over.
    pub(crate) fn send(&mut self, rate: u64) {
        self.finish_load();
        self.load = Some(Load::start(&self.run, Pace { rate, ..Pace::default() }));
    }

    pub(crate) fn finish_load(&mut self) {
        if let Some(load) = self.load.take() {
            load.finish(Duration::from_secs(30));
        }
    }

    /// Waits; restarts processes that end meanwhile.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.wait_for(time, |_| false);
    }

    /// Waits until a condition holds. Returns how long that took, `None` if it does not hold in time.
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

    /// Events counted by all processors, by their metrics.
    pub(crate) fn counted(&self) -> u64 {
        self.meter.scrape();
        self.meter.total("millrace_processor_counted_total", "")
    }

    /// Requires that the processors count another event in time.
    pub(crate) fn continues(&mut self, part: &mut Part, what: &str, within: Duration) {
        let before = self.counted();
        let took = self.wait_for(within, |cluster| cluster.counted() > before);
        let text = took.map_or_else(|| "never".to_owned(), |took| format!("{:.1} s", took.as_secs_f64()));
        part.must(took.is_some(), format!("{what}: counting continues after {text} (at most {} s)", within.as_secs()));
    }

    /// Events of the base hour that reads show.
    pub(crate) fn visible(&self) -> u64 {
        let response =
            self.system.queries().iter().find_map(|address| http_get(*address, &target(self.run.shape.base_hour)).ok());
        response.as_ref().and_then(counts).map_or(0, |counts| counts.clicks + counts.impressions)
    }
}

/// This many seconds.
pub(crate) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}
