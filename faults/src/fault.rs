//! Every kind of fault: its injection, its repair, and the evidence that it took effect.

use std::fmt;
use std::time::Duration;

use millrace_testkit::Link;

use crate::stores::redis_do;
use crate::system::System;

/// Fail points at which a process of the embedded engine kills itself.
pub const EMBEDDED_POINTS: [&str; 10] = [
    "embedded::append::enqueued",
    "embedded::append::synced",
    "embedded::commit",
    "embedded::sync",
    "embedded::stage::polled",
    "embedded::stage::applied",
    "embedded::stage::written",
    "embedded::sink::positions",
    "embedded::sink::written",
    "embedded::sync:delayed",
];

/// Fail points at which a service on Kafka kills itself.
pub const KAFKA_POINTS: &[(&str, &[&str])] = &[
    ("command", &["kafka::append::enqueued", "kafka::append::reported"]),
    (
        "processor",
        &[
            "kafka::stage::assigned",
            "kafka::restore::marked",
            "kafka::restore::loaded",
            "kafka::stage::polled",
            "kafka::stage::applied",
            "kafka::stage::produced",
            "kafka::stage::drained",
            "kafka::stage::offsets_sent",
            "kafka::stage::committing",
            "kafka::stage::committing:delayed",
            "kafka::stage::committed",
        ],
    ),
    ("materializer", &["kafka::sink::positions", "kafka::sink::written"]),
];

/// Fail points of the journal's writer, on either engine.
pub const JOURNAL_POINTS: [&str; 3] = ["journal::segment", "journal::written", "journal::moved"];

/// The longest allowed stop after `SIGTERM`.
pub const STOP: Duration = Duration::from_secs(15);

/// A fault and its target.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// `SIGKILL`; down until the repair.
    Kill(String),
    /// `SIGSTOP`, then `SIGCONT`.
    Freeze(String),
    /// `SIGTERM`, after which the exit status must be 0; down until the repair.
    Terminate(String),
    /// A restart with a fail point at which it kills itself; the number seeds at which pass.
    Crash(String, &'static str, u64),
    /// A restart with a fail point at which a sync fails.
    FailedSync(String),
    /// A link in a faulty state.
    Link(String, Link),
    /// Everything in Redis is deleted.
    RedisFlush,
    /// Redis is killed; down until the repair.
    RedisKill,
    /// Redis is frozen.
    RedisFreeze,
    /// Redis refuses writes: out of memory with noeviction.
    RedisFull,
    /// Redis refuses writes: a replica of an unreachable server.
    RedisReadOnly,
    /// Redis refuses writes: the user has no permission.
    RedisForbids,
    /// PostgreSQL is killed; down until the repair.
    PostgresKill,
    /// A broker is killed; down until the repair.
    BrokerKill(usize),
    /// A broker is stopped by `SIGTERM`; down until the repair.
    BrokerStop(usize),
    /// A broker is frozen.
    BrokerFreeze(usize),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(name, link) => write!(f, "{name} {link:?}"),
            Self::Crash(node, point, seed) => write!(f, "crash {node} at {point} ({seed})"),
            other => f.write_str(format!("{} {}", other.kind(), other.target()).trim()),
        }
    }
}

impl Fault {
    /// Its kind, the key of the tally.
    pub fn kind(&self) -> String {
        match self {
            Self::Kill(node) => format!("kill -9 {}", role(node)),
            Self::Freeze(node) => format!("freeze {}", role(node)),
            Self::Terminate(node) => format!("SIGTERM {}", role(node)),
            Self::Crash(_, point, _) => format!("crash at {point}"),
            Self::FailedSync(_) => "failed sync".into(),
            Self::Link(name, link) => {
                let link = format!("{link:?}");
                let way = link.split('(').next().unwrap_or_default().to_lowercase();
                let link = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
                format!("link {link} {way}")
            }
            Self::RedisFlush => "redis FLUSHALL".into(),
            Self::RedisKill => "redis kill -9".into(),
            Self::RedisFreeze => "redis freeze".into(),
            Self::RedisFull => "redis OOM".into(),
            Self::RedisReadOnly => "redis READONLY".into(),
            Self::RedisForbids => "redis NOPERM".into(),
            Self::PostgresKill => "postgres kill -9".into(),
            Self::BrokerKill(_) => "broker kill -9".into(),
            Self::BrokerStop(_) => "broker SIGTERM".into(),
            Self::BrokerFreeze(_) => "broker freeze".into(),
        }
    }

    /// Its target: two faults of one target at the same time would repair each other.
    pub fn target(&self) -> String {
        match self {
            Self::Kill(node)
            | Self::Freeze(node)
            | Self::Terminate(node)
            | Self::Crash(node, ..)
            | Self::FailedSync(node)
            | Self::Link(node, _) => node.clone(),
            Self::RedisFlush
            | Self::RedisKill
            | Self::RedisFreeze
            | Self::RedisFull
            | Self::RedisReadOnly
            | Self::RedisForbids => "redis".into(),
            Self::PostgresKill => "postgres".into(),
            Self::BrokerKill(n) | Self::BrokerStop(n) | Self::BrokerFreeze(n) => format!("broker {n}"),
        }
    }

    /// Injects the fault.
    ///
    /// # Errors
    /// If a stop is not clean or a server does not respond.
    pub fn inject(&self, system: &mut System) -> Result<(), String> {
        match self {
            Self::Kill(node) => system.node(node).kill(),
            Self::Freeze(node) => system.node(node).freeze(),
            Self::Terminate(node) => {
                let status = system.node(node).terminate(STOP);
                return match status {
                    Some(status) if status.success() => Ok(()),
                    Some(status) => Err(format!("{node} exited with {status} after SIGTERM")),
                    None => Err(format!("{node} did not exit within {STOP:?} after SIGTERM")),
                };
            }
            Self::Crash(node, point, seed) => {
                let spec = match point.strip_suffix(":delayed") {
                    Some(point) => format!("{point}:50:3000"),
                    // A process passes some points once, others with every event.
                    None if ["assigned", "restore", "positions"].iter().any(|word| point.contains(word)) => {
                        format!("{point}:1000")
                    }
                    None if point.contains("append") => format!("{point}:2"),
                    // Once in a segment.
                    None if *point == "journal::segment" => format!("{point}:500"),
                    None => format!("{point}:50"),
                };
                let seed = seed.to_string();
                system.node(node).kill();
                system.node(node).start_with(&[("MILLRACE_CRASH", &spec), ("MILLRACE_SEED", &seed)]);
            }
            Self::FailedSync(node) => {
                system.node(node).kill();
                system.node(node).start_with(&[("FAILPOINTS", "embedded::sync=20*off->1*return")]);
            }
            Self::Link(link, to) => system.set_link(link, *to),
            Self::RedisFlush => redis(system, &["FLUSHALL"])?,
            Self::RedisKill => system.redis.iter_mut().for_each(millrace_testkit::Redis::kill),
            Self::RedisFreeze => system.redis.iter_mut().for_each(millrace_testkit::Redis::freeze),
            Self::RedisFull => redis(system, &["CONFIG", "SET", "maxmemory", "1"])?,
            Self::RedisReadOnly => redis(system, &["REPLICAOF", "127.0.0.1", "1"])?,
            Self::RedisForbids => redis(system, &["ACL", "SETUSER", "default", "-hset", "-set"])?,
            Self::PostgresKill => system.postgres.iter_mut().for_each(millrace_testkit::Postgres::kill),
            Self::BrokerKill(n) => broker(system, *n)?.kill(),
            Self::BrokerStop(n) => broker(system, *n)?.shut_down(),
            Self::BrokerFreeze(n) => broker(system, *n)?.freeze(),
        }
        Ok(())
    }

    /// Repairs the fault.
    ///
    /// # Errors
    /// If a server does not start again.
    pub fn repair(&self, system: &mut System) -> Result<(), String> {
        match self {
            Self::Kill(node) | Self::Terminate(node) => system.node(node).start(),
            Self::Freeze(node) => system.node(node).thaw(),
            Self::Crash(node, ..) | Self::FailedSync(node) => {
                // Whether or not it has crashed, the next process starts without the fail point.
                system.node(node).kill();
                system.node(node).start();
            }
            Self::Link(link, _) => system.set_link(link, Link::Whole),
            Self::RedisFlush => {}
            Self::RedisKill => system.redis.as_mut().map_or(Ok(()), millrace_testkit::Redis::restart)?,
            Self::RedisFreeze => system.redis.iter_mut().for_each(millrace_testkit::Redis::thaw),
            Self::RedisFull => redis(system, &["CONFIG", "SET", "maxmemory", "0"])?,
            Self::RedisReadOnly => redis(system, &["REPLICAOF", "NO", "ONE"])?,
            Self::RedisForbids => redis(system, &["ACL", "SETUSER", "default", "+@all"])?,
            Self::PostgresKill => system.postgres.as_mut().map_or(Ok(()), millrace_testkit::Postgres::restart)?,
            Self::BrokerKill(n) | Self::BrokerStop(n) => broker(system, *n)?.restart()?,
            Self::BrokerFreeze(n) => broker(system, *n)?.thaw(),
        }
        Ok(())
    }

    /// A count that grows when the fault takes effect; `None` for signals and commands, which always do.
    pub(crate) fn effects(&self, system: &mut System) -> Option<u64> {
        Some(match self {
            Self::Link(link, _) => system.effects(link),
            Self::Crash(node, point, _) => {
                let point = point.trim_end_matches(":delayed");
                let ends = &system.node(node).ends;
                ends.iter().filter(|end| end.contains("crash at") && end.contains(point)).count() as u64
            }
            Self::FailedSync(node) => system.node(node).ends.len() as u64,
            _ => return None,
        })
    }
}

fn role(node: &str) -> &str {
    node.split('-').next().unwrap_or_default()
}

fn redis(system: &System, command: &[&str]) -> Result<(), String> {
    let url = system.redis.as_ref().ok_or("no Redis")?.url();
    redis_do(&url, command).map(drop)
}

fn broker(system: &mut System, number: usize) -> Result<&mut millrace_testkit::Kafka, String> {
    let nodes = system.brokers.as_mut().ok_or("no brokers")?.nodes();
    nodes.get_mut(number).ok_or_else(|| format!("no broker {number}"))
}
