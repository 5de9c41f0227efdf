//! Every kind of fault: how it is injected, how it is mended, and how one knows that it was felt.

use std::fmt;
use std::time::Duration;

use millrace_testkit::Link;

use crate::stores::redis_do;
use crate::system::System;

/// Points at which a process of the embedded engine may kill itself.
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

/// Points at which a service on Kafka may kill itself.
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

/// How long a stop by `SIGTERM` may take.
pub const STOP: Duration = Duration::from_secs(15);

/// One fault and what it strikes.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// `SIGKILL`; down while it lasts.
    Kill(String),
    /// `SIGSTOP`, then `SIGCONT`.
    Freeze(String),
    /// `SIGTERM`, which must end with status 0; down while it lasts.
    Terminate(String),
    /// Started anew so that it kills itself at a point; the number seeds at which coming.
    Crash(String, &'static str, u64),
    /// Started anew so that a sync fails.
    FailedSync(String),
    /// A link broken in some way.
    Link(String, Link),
    /// Everything in Redis is deleted.
    RedisFlush,
    /// Redis is killed; away while it lasts.
    RedisKill,
    /// Redis answers nothing.
    RedisFreeze,
    /// Redis takes no writes: over its memory, with noeviction.
    RedisFull,
    /// Redis takes no writes: a replica of a server that is not there.
    RedisReadOnly,
    /// Redis takes no writes: the user may not run them.
    RedisForbids,
    /// PostgreSQL is killed; away while it lasts.
    PostgresKill,
    /// A broker is killed; away while it lasts.
    BrokerKill(usize),
    /// A broker is stopped by `SIGTERM`; away while it lasts.
    BrokerStop(usize),
    /// A broker answers nothing.
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
    /// The word under which it is tallied.
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

    /// What it strikes: two faults of one target at a time would mend each other.
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

    /// Does it.
    ///
    /// # Errors
    /// What did not go as it must: a stop that is not clean, a server that does not answer.
    pub fn inject(&self, system: &mut System) -> Result<(), String> {
        match self {
            Self::Kill(node) => system.node(node).kill(),
            Self::Freeze(node) => system.node(node).freeze(),
            Self::Terminate(node) => {
                let status = system.node(node).terminate(STOP);
                return match status {
                    Some(status) if status.success() => Ok(()),
                    Some(status) => Err(format!("{node} was stopped and ended with {status}")),
                    None => Err(format!("{node} did not end within {STOP:?}")),
                };
            }
            Self::Crash(node, point, seed) => {
                let spec = match point.strip_suffix(":delayed") {
                    Some(point) => format!("{point}:50:3000"),
                    // Some points are come to once in a life, others with every event.
                    None if ["assigned", "restore", "positions"].iter().any(|word| point.contains(word)) => {
                        format!("{point}:1000")
                    }
                    None if point.contains("append") => format!("{point}:2"),
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

    /// Undoes it.
    ///
    /// # Errors
    /// If a server does not come back.
    pub fn mend(&self, system: &mut System) -> Result<(), String> {
        match self {
            Self::Kill(node) | Self::Terminate(node) => system.node(node).start(),
            Self::Freeze(node) => system.node(node).thaw(),
            Self::Crash(node, ..) | Self::FailedSync(node) => {
                // Whether it has crashed or not, the next process has no such orders.
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

    /// Something that grows when the fault is felt; nothing where a signal or a command that was answered cannot be missed.
    pub(crate) fn felt(&self, system: &mut System) -> Option<u64> {
        Some(match self {
            Self::Link(link, _) => system.disturbed(link),
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
