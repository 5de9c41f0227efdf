//! The rows of the fault table as scripts: what the random nemesis cannot assert, each with its own condition. Every row
//! ends in the comparison of all numbers.

#![expect(clippy::unnecessary_wraps, reason = "every script has the one type, whether it can fail or not")]

mod brokers;
mod embedded;
mod identity;
mod intake;
mod links;
mod position;
mod pressure;
mod push;
mod scenario;
mod services;
mod stores;
mod topics;

pub(crate) use identity::lost_end;
pub(crate) use intake::{
    messages_and_a_kill_of_the_writer, messages_and_kills_of_up, messages_behind_a_cut_link,
    messages_behind_a_missing_one, messages_sent_twice,
};
pub(crate) use links::lost_replies;
pub(crate) use position::rewind_group;
pub(crate) use push::{pushes_and_kills, setup as push_setup};
pub(crate) use topics::messages_and_one_kill;

use scenario::Scenario;

use crate::cluster::Cluster;
use crate::options::Options;
use crate::report::Part;
use crate::system::Engine;

fn rows(engine: Engine) -> Vec<&'static Scenario> {
    match engine {
        Engine::Embedded => embedded::ROWS.iter().collect(),
        Engine::Kafka => {
            let rows = [services::ROWS, position::ROWS, identity::ROWS, stores::ROWS, links::ROWS, brokers::ROWS];
            rows.into_iter().chain([pressure::ROWS, topics::ROWS, intake::ROWS, push::ROWS]).flatten().collect()
        }
    }
}

/// Runs one row on a system of its own.
///
/// # Errors
/// If there is no such row, or the system does not start.
pub fn row(engine: Engine, row: &str, options: &Options) -> Result<Part, String> {
    let scenario = rows(engine).into_iter().find(|scenario| scenario.row == row);
    let scenario = scenario.ok_or_else(|| format!("there is no row {row} of {engine}"))?;
    Ok(scenario.start(engine, options)?.play(&format!("{engine} row {row}"), scenario.what, scenario.play))
}

/// Runs the selected rows of an engine.
pub fn run(engine: Engine, options: &Options, take: &mut dyn FnMut(Part)) {
    let mut shared: Option<Cluster> = None;
    for scenario in rows(engine).into_iter().filter(|scenario| options.wants(scenario.row)) {
        let name = format!("{engine} row {}", scenario.row);
        if scenario.fail_points && !options.fail_points {
            let mut part = Part::new(&name, scenario.what);
            part.unmet.push("the binary has no fail points".to_owned());
            take(part);
            continue;
        }
        let reused = if scenario.own.is_none() { shared.take() } else { None };
        let mut cluster = match reused.map_or_else(|| scenario.start(engine, options), Ok) {
            Ok(cluster) => cluster,
            Err(why) => {
                take(Part::failed(&name, why));
                continue;
            }
        };
        crate::print(&format!("{name}: {}", scenario.what));
        let part = cluster.play(&name, scenario.what, scenario.play);
        let green = part.differences.is_empty();
        take(part);
        // A row must not fail because of what an earlier one broke.
        if green && scenario.own.is_none() {
            shared = Some(cluster);
        }
    }
}
