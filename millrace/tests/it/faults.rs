//! The short part of the fault harness (`make faults` has the rest): a random run on each engine, and two controls.

use std::time::Duration;

use millrace_faults::load::Pace;
use millrace_faults::options::{Options, has_fail_points};
use millrace_faults::random::{RandomRun, random};
use millrace_faults::report::Part;
use millrace_faults::system::{Engine, Setup};
use millrace_faults::{controls, scenarios};
use millrace_testkit::not_run;

const SEED: u64 = 11;
const LENGTH: Duration = Duration::from_secs(15);

fn run(engine: Engine, instances: usize, named: bool) -> Result<Part, String> {
    let setup = Setup { instances, named, ..Setup::new(engine) };
    let pace = Pace { rate: 500, ..Pace::default() };
    random("a short random run", &RandomRun { setup, seed: SEED, length: LENGTH, pace, fail_points: has_fail_points() })
}

fn options(engine: Engine) -> Options {
    Options { seed: SEED, engines: vec![engine], length: LENGTH, only: Vec::new(), fail_points: has_fail_points() }
}

fn assert_green(part: &Part) {
    assert!(part.is_green(), "{part:#?}");
}

#[test]
fn a_short_random_run_on_the_embedded_engine_changes_no_count() {
    assert_green(&run(Engine::Embedded, 1, false).unwrap());
}

#[test]
fn a_short_random_run_on_kafka_changes_no_count() {
    for named in [false, true] {
        match run(Engine::Kafka, 2, named) {
            Ok(part) => assert_green(&part),
            Err(why) => return not_run("a short random run on Kafka", "Apache Kafka, Redis and PostgreSQL", &why),
        }
    }
}

/// FLUSHALL under load, then each store killed in turn and both: what readers see.
#[test]
fn numbers_never_fall_and_reads_succeed_while_one_store_is_available() {
    for row in ["19", "reads"] {
        match scenarios::row(Engine::Kafka, row, &options(Engine::Kafka)) {
            Ok(part) => assert_green(&part),
            Err(why) => return not_run("reads without stores", "Apache Kafka, Redis and PostgreSQL", &why),
        }
    }
}

#[test]
fn detects_a_response_before_the_log_has_the_event() {
    assert_green(&controls::named(Engine::Embedded, &options(Engine::Embedded), "answer-early").unwrap());
}

#[test]
fn detects_a_message_that_is_journaled_twice() {
    assert_green(&controls::named(Engine::Embedded, &options(Engine::Embedded), "forget-ranges").unwrap());
}
