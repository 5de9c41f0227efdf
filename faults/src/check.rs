//! The comparison once everything is idle: the oracle with the log, and a fold of the log with every read model.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::thread;
use std::time::{Duration, Instant};

use millrace_testkit::http_get;

use crate::event::LATE_HOURS;
use crate::fold::{Hours, LogRecord, fold, repeats};
use crate::load::Run;
use crate::log;
use crate::stores;
use crate::system::{Engine, System};
use crate::watcher::{counts, target};

/// Consecutive polls without a difference that complete the comparison.
const POLLS: u32 = 5;
const EVERY: Duration = Duration::from_millis(200);
/// The maximum number of differences in a report.
const MAX_DIFFERENCES: usize = 30;
/// Hours before the current one that Redis must have: fewer than its window of 24, because time passes.
const LIVE: u64 = 20;

/// The result of a comparison.
#[derive(Debug, Clone, Default)]
pub struct Comparison {
    /// Every difference.
    pub differences: Vec<String>,
    /// Records in the log.
    pub records: u64,
    /// Records that repeat an event id.
    pub repeats: u64,
    /// Sends of unknown outcome whose event is in the log.
    pub unknown_stored: u64,
    /// Sends of unknown outcome whose event is not.
    pub unknown_lost: u64,
    /// The time from the call until everything was equal.
    pub took: Duration,
}

/// Waits until the log stops growing and all counts are equal to its fold. Reports the differences after `within`.
pub fn settle(system: &mut System, run: &Run, within: Duration) -> Comparison {
    let begun = Instant::now();
    let mut outcome = Comparison::default();
    if let Err(why) = system.repair_all().and_then(|()| system.wait_ready()) {
        outcome.differences.push(why);
        return outcome;
    }
    let log = match stable_log(system, within) {
        Ok(log) => log,
        Err(why) => {
            outcome.differences.push(format!("the log cannot be read: {why}"));
            return outcome;
        }
    };
    compare_log(run, &log, &mut outcome);
    let truth = fold(&log);
    let mut equal = 0;
    let mut differences = Vec::new();
    while equal < POLLS && begun.elapsed() < within {
        system.tend();
        differences = compare_answers(system, run, &truth);
        equal = if differences.is_empty() { equal + 1 } else { 0 };
        thread::sleep(EVERY);
    }
    outcome.differences.append(&mut differences);
    if system.engine == Engine::Kafka {
        compare_stores(system, run, &truth, &mut outcome.differences);
    }
    match log::hourly(system) {
        Ok(hours) => differ("analytics.hourly", &truth, &hours, &mut outcome.differences),
        Err(why) => outcome.differences.push(format!("analytics.hourly cannot be read: {why}")),
    }
    outcome.differences.truncate(MAX_DIFFERENCES);
    outcome.took = begun.elapsed();
    outcome
}

/// The log, once two reads return the same length: no request of the load is in flight any more.
fn stable_log(system: &mut System, within: Duration) -> Result<Vec<LogRecord>, String> {
    let deadline = Instant::now() + within;
    let mut before = log::events(system)?;
    loop {
        thread::sleep(Duration::from_secs(1));
        system.tend();
        let log = log::events(system)?;
        if log.len() == before.len() {
            return Ok(log);
        }
        if Instant::now() > deadline {
            return Err("it does not stop growing".to_owned());
        }
        before = log;
    }
}

/// Nothing lost, nothing that was never sent, and the content that was sent.
fn compare_log(run: &Run, log: &[LogRecord], outcome: &mut Comparison) {
    type Content<'a> = (&'a str, u64, bool);
    outcome.records = log.len() as u64;
    let (repeated, conflicts) = repeats(log);
    outcome.repeats = repeated;
    if conflicts > 0 {
        outcome.differences.push(format!("{conflicts} records repeat an event id with other content"));
    }
    let mut with_id: HashMap<&str, u32> = HashMap::new();
    let mut without: HashMap<Content<'_>, u32> = HashMap::new();
    for event in log {
        match &event.id {
            Some(id) => *with_id.entry(id).or_default() += 1,
            None => *without.entry((&event.user, event.timestamp_ms, event.click)).or_default() += 1,
        }
    }
    let events: Vec<_> = run
        .oracle
        .send_counts()
        .into_iter()
        .enumerate()
        .map(|(number, sends)| (run.shape.event(number as u64), sends))
        .collect();
    // Events without ids can be equal by chance: for each content, their number must be within bounds.
    let mut bounds: BTreeMap<Content<'_>, (u32, u32)> = BTreeMap::new();
    let mut ids = HashSet::new();
    for (event, sends) in &events {
        let most = sends.acknowledged + sends.unknown;
        let Some(id) = &event.id else {
            let bound = bounds.entry((&event.user, event.timestamp_ms, event.click)).or_default();
            bound.0 += sends.acknowledged;
            bound.1 += most;
            continue;
        };
        ids.insert(id.as_str());
        let found = with_id.get(id.as_str()).copied().unwrap_or_default();
        let least = sends.acknowledged;
        if !(least..=most).contains(&found) {
            let text = format!("event {id} is in the log {found} times, not {least} to {most}");
            outcome.differences.push(text);
        }
        outcome.unknown_stored += u64::from(found.saturating_sub(least).min(sends.unknown));
        outcome.unknown_lost += u64::from(most.saturating_sub(found).min(sends.unknown));
    }
    for (content, (least, most)) in &bounds {
        let found = without.remove(content).unwrap_or_default();
        if !(*least..=*most).contains(&found) {
            outcome.differences.push(format!("{content:?} is in the log {found} times, not {least} to {most}"));
        }
        outcome.unknown_stored += u64::from(found.saturating_sub(*least));
        outcome.unknown_lost += u64::from(most.saturating_sub(found.max(*least)));
    }
    outcome.differences.extend(without.keys().map(|content| format!("{content:?} was never sent")));
    outcome.differences.extend(
        with_id.keys().filter(|id| !ids.contains(**id)).map(|id| format!("event {id} was never sent, but is stored")),
    );
}

/// Every hour at every query service, and one hour without events.
fn compare_answers(system: &System, run: &Run, truth: &Hours) -> Vec<String> {
    let mut differences = Vec::new();
    let empty = run.shape.base_hour - LATE_HOURS - 5;
    for address in system.queries() {
        for hour in run.shape.hours().chain([empty]) {
            let expected = truth.get(&hour).copied().unwrap_or_default();
            match http_get(address, &target(hour)) {
                Ok(answer) if answer.status == 200 => match counts(&answer) {
                    Some(found) if found == expected => {}
                    found => {
                        let found = found.map_or_else(|| answer.text().to_owned(), |found| found.to_string());
                        let tier = answer.header("millrace-tier").unwrap_or("none");
                        differences.push(format!("hour {hour} at {address} ({tier}): {found}, not {expected}"));
                    }
                },
                Ok(answer) => differences.push(format!("hour {hour} at {address}: {}", answer.status)),
                Err(error) => differences.push(format!("hour {hour} at {address}: {error}")),
            }
            if differences.len() >= MAX_DIFFERENCES {
                return differences;
            }
        }
    }
    differences
}

fn compare_stores(system: &System, run: &Run, truth: &Hours, differences: &mut Vec<String>) {
    if let Some(postgres) = &system.postgres {
        match stores::postgres(&postgres.url(), &system.schema()) {
            Ok(hours) => differ("PostgreSQL", truth, &hours, differences),
            Err(why) => differences.push(format!("PostgreSQL cannot be read: {why}")),
        }
    }
    if let Some(redis) = &system.redis {
        let stem = format!("{}:", system.prefix().trim_end_matches('.'));
        match stores::redis(&redis.url(), &stem) {
            Ok(hours) => {
                let live = |hour: &u64| *hour + LIVE >= run.shape.base_hour || hours.contains_key(hour);
                let live: Hours = truth.iter().filter(|(hour, _)| live(hour)).map(|(h, c)| (*h, *c)).collect();
                differ("Redis", &live, &hours, differences);
            }
            Err(why) => differences.push(format!("Redis cannot be read: {why}")),
        }
    }
}

fn differ(name: &str, truth: &Hours, found: &Hours, differences: &mut Vec<String>) {
    for hour in truth.keys().chain(found.keys().filter(|hour| !truth.contains_key(hour))) {
        let (expected, found) = (truth.get(hour).copied().unwrap_or_default(), found.get(hour).copied());
        let found = found.unwrap_or_default();
        if expected != found {
            differences.push(format!("hour {hour} in {name}: {found}, not {expected}"));
        }
    }
}
