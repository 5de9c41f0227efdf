//! The nemesis: a schedule determined by a seed, and its execution.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use millrace_testkit::Link;

use crate::event::mix;
use crate::fault::Fault;
use crate::system::{Engine, System};

/// The interval between two steps of the execution.
const STEP: Duration = Duration::from_millis(100);

/// A fault in the schedule.
#[derive(Debug, Clone, PartialEq)]
pub struct Act {
    /// Its start, from the start of the run.
    pub at: Duration,
    /// Its duration.
    pub hold: Duration,
    /// The fault.
    pub fault: Fault,
}

/// How often a fault was scheduled, fired and effective.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// In the schedule.
    pub scheduled: u64,
    /// Injected.
    pub fired: u64,
    /// Took effect: a process died of it, a link held bytes or ended a connection, a server was down.
    pub effective: u64,
}

/// The result of executing a schedule.
#[derive(Debug, Clone, Default)]
pub struct Execution {
    /// By kind of fault.
    pub tally: BTreeMap<String, Tally>,
    /// Failures of injections and repairs: exits that were not clean, servers that did not start.
    pub failures: Vec<String>,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6.1} s  {:<9} for {:.1} s", self.at.as_secs_f64(), self.fault, self.hold.as_secs_f64())
    }
}

/// A stream of numbers determined by a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % bound
    }

    fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).expect("below a length")
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.index(of.len())]
    }
}

/// The schedule of a seed: windows of 5 to 10 s, a quarter of them without faults, the others with one to three. Kinds are
/// drawn like cards from a deck, so that each one comes regularly.
pub fn schedule(engine: Engine, seed: u64, length: Duration, fail_points: bool) -> Vec<Act> {
    let (mut dice, mut acts, mut deck) = (Dice(mix(seed ^ 0x6e65_6d65)), Vec::new(), Vec::new());
    let mut at = Duration::from_secs(2);
    loop {
        let window = dice.ms(5_000, 10_000);
        if at + window > length {
            acts.sort_by_key(|act: &Act| act.at);
            return acts;
        }
        let faults = if dice.below(4) == 0 { 0 } else { 1 + dice.below(3) };
        let mut targets: Vec<String> = Vec::new();
        for _ in 0..faults {
            if deck.is_empty() {
                deck = kinds(engine, &mut dice, fail_points);
                for last in (1..deck.len()).rev() {
                    let other = dice.index(last + 1);
                    deck.swap(last, other);
                }
            }
            let Some(fault) = deck.pop() else { break };
            // Two faults of one target would repair each other.
            if targets.iter().any(|target| *target == fault.target()) {
                deck.insert(0, fault);
                continue;
            }
            targets.push(fault.target());
            let late = dice.ms(0, 1_500);
            let most = u64::try_from(window.saturating_sub(late).as_millis()).unwrap_or(u64::MAX);
            let hold = match fault {
                // The process passes the point some time later.
                Fault::Crash(..) | Fault::FailedSync(_) => window.saturating_sub(late),
                _ => dice.ms(500, most),
            };
            acts.push(Act { at: at + late, hold, fault });
        }
        at += window;
    }
}

/// Every kind of fault once, each with a random target.
fn kinds(engine: Engine, dice: &mut Dice, fail_points: bool) -> Vec<Fault> {
    let links = |dice: &mut Dice| {
        let slow = Link::Slow(dice.ms(100, 2_000));
        let flapping = Link::Flapping(Duration::from_secs(1));
        [Link::Cut, Link::CutUp, Link::CutDown, flapping, slow, Link::Sliced, Link::Reset, Link::HalfClosed]
    };
    let broken = |dice: &mut Dice, link: String| {
        let all = links(dice);
        Fault::Link(link, *dice.one(&all))
    };
    let either = |dice: &mut Dice, role: &str| format!("{role}-{}", 1 + dice.below(2));
    let mut faults = Vec::new();
    match engine {
        Engine::Embedded => {
            let node = || "up-1".to_owned();
            faults.extend([Fault::Kill(node()), Fault::Kill(node()), Fault::Freeze(node()), Fault::Terminate(node())]);
            faults.extend(links(dice).map(|link| Fault::Link("client-up-1".into(), link)));
            if fail_points {
                faults.extend(
                    crate::fault::EMBEDDED_POINTS.map(|point| Fault::Crash(node(), point, dice.below(1 << 32))),
                );
                faults.push(Fault::FailedSync(node()));
            }
        }
        Engine::Kafka => {
            for role in crate::system::ROLES {
                faults.push(Fault::Kill(either(dice, role)));
                faults.push(Fault::Freeze(either(dice, role)));
                faults.push(Fault::Terminate(either(dice, role)));
            }
            for role in ["command", "processor", "materializer"] {
                let link = format!("kafka-{}", either(dice, role));
                faults.push(broken(dice, link));
            }
            for link in ["redis-materializer", "redis-query", "postgres-materializer", "postgres-query"] {
                faults.push(broken(dice, link.to_owned()));
            }
            let link = format!("client-{}", either(dice, "command"));
            faults.push(broken(dice, link));
            faults.extend([Fault::RedisFlush, Fault::RedisKill, Fault::RedisFreeze, Fault::RedisFull]);
            faults.extend([Fault::RedisReadOnly, Fault::RedisForbids, Fault::PostgresKill]);
            faults.extend([Fault::BrokerKill(0), Fault::BrokerStop(0), Fault::BrokerFreeze(0)]);
            if fail_points {
                for (role, points) in crate::fault::KAFKA_POINTS {
                    for point in *points {
                        faults.push(Fault::Crash(either(dice, role), point, dice.below(1 << 32)));
                    }
                }
            }
        }
    }
    faults
}

/// Executes a schedule and restarts processes that end. The schedule's clock stops during an injection or a repair: a broker
/// that starts slowly must not make faults of one target overlap.
pub fn execute(system: &mut System, schedule: &[Act], length: Duration) -> Execution {
    let mut execution = Execution::default();
    for act in schedule {
        execution.tally.entry(act.fault.kind()).or_default().scheduled += 1;
    }
    let mut waiting: Vec<&Act> = schedule.iter().rev().collect();
    let mut active: Vec<(&Act, Option<u64>)> = Vec::new();
    let (mut now, mut looked) = (Duration::ZERO, Instant::now());
    while now < length || !active.is_empty() {
        system.tend();
        now += looked.elapsed();
        let over: Vec<_> = active.extract_if(.., |(act, _)| act.at + act.hold <= now).collect();
        for (act, before) in over {
            if before.is_none() || act.fault.effects(system) > before {
                execution.tally.entry(act.fault.kind()).or_default().effective += 1;
            }
            if let Err(why) = act.fault.repair(system) {
                execution.failures.push(format!("repairing {}: {why}", act.fault));
            }
        }
        while let Some(act) = waiting.pop_if(|act| act.at <= now) {
            active.push((act, act.fault.effects(system)));
            match act.fault.inject(system) {
                Ok(()) => execution.tally.entry(act.fault.kind()).or_default().fired += 1,
                Err(why) => execution.failures.push(format!("{}: {why}", act.fault)),
            }
        }
        looked = Instant::now();
        std::thread::sleep(STEP);
    }
    execution
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_schedule_and_draws_every_kind() {
        let length = Duration::from_mins(10);
        for engine in [Engine::Embedded, Engine::Kafka] {
            let acts = schedule(engine, 7, length, true);
            assert_eq!(acts, schedule(engine, 7, length, true));
            assert_ne!(acts, schedule(engine, 8, length, true));
            let scheduled: std::collections::BTreeSet<String> = acts.iter().map(|act| act.fault.kind()).collect();
            let all = kinds(engine, &mut Dice(1), true);
            assert!(
                all.iter().filter(|fault| !matches!(fault, Fault::Link(..))).all(|f| scheduled.contains(&f.kind()))
            );
            assert!(acts.iter().all(|act| act.at + act.hold <= length));
        }
    }
}
