//! Rows 18 to 21: Redis lost, emptied, failed over, and refusing.

use std::collections::BTreeMap;

use millrace_testkit::{Link, Redis};

use super::scenario::Scenario;
use crate::cluster::{Cluster, seconds};
use crate::fault::Fault;
use crate::report::Part;
use crate::stores::redis_do;
use crate::system::address_of;

const LINKS: [&str; 2] = ["redis-materializer", "redis-query"];

pub(super) const ROWS: &[Scenario] = &[
    Scenario {
        row: "18",
        what: "Redis killed with its append-only file, then killed and its data deleted: it resumes from its own position, then it is rebuilt.",
        fail_points: false,
        own: None,
        play: killed,
    },
    Scenario {
        row: "19",
        what: "FLUSHALL under load: rebuilt without intervention; reads return `rebuilding` or the counts, never zeros.",
        fail_points: false,
        own: None,
        play: flushed,
    },
    Scenario {
        row: "20",
        what: "replication blocked for 5 s, the replica promoted, clients moved to it, the old primary back: the lost tail is written again, and the old primary receives nothing.",
        fail_points: false,
        own: None,
        play: failover,
    },
    Scenario {
        row: "21",
        what: "Redis errors: OOM, READONLY, NOPERM, NOSCRIPT, WRONGTYPE, paused, stopped for 15 s: retried, never skipped.",
        fail_points: false,
        own: None,
        play: refusals,
    },
    Scenario {
        row: "reads",
        what: "Redis, then PostgreSQL killed for 4 s under reads of live hours: every response has counts. Both killed: counts from memory or 503 with Retry-After, without delay.",
        fail_points: false,
        own: None,
        play: killed_in_turn,
    },
];

fn url(cluster: &Cluster) -> Result<String, String> {
    cluster.system.redis.as_ref().map(Redis::url).ok_or_else(|| "no Redis".to_owned())
}

fn rebuilds(cluster: &Cluster) -> u64 {
    cluster.meter.scrape();
    cluster.meter.total("millrace_materializer_rebuilds_total", "redis")
}

fn killed(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    cluster.pass(seconds(2));
    Fault::RedisKill.inject(&mut cluster.system)?;
    cluster.pass(seconds(2));
    Fault::RedisKill.repair(&mut cluster.system)?;
    cluster.pass(seconds(3));
    let before = rebuilds(cluster);
    if let Some(redis) = &mut cluster.system.redis {
        redis.delete_data();
    }
    cluster.pass(seconds(2));
    Fault::RedisKill.repair(&mut cluster.system)?;
    let again = cluster.wait_for(seconds(30), |cluster| rebuilds(cluster) > before);
    part.must(again.is_some(), "Redis is rebuilt after its data was deleted");
    Ok(())
}

fn flushed(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    for round in 1..=3 {
        cluster.pass(seconds(3));
        let before = rebuilds(cluster);
        Fault::RedisFlush.inject(&mut cluster.system)?;
        let again = cluster.wait_for(seconds(30), |cluster| rebuilds(cluster) > before);
        let text = again.map_or_else(|| "never".to_owned(), |took| format!("after {:.1} s", took.as_secs_f64()));
        part.must(again.is_some(), format!("FLUSHALL {round}: rebuilt {text}"));
    }
    Ok(())
}

fn failover(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    let replica = Redis::start()?;
    let (old, new) = (url(cluster)?, replica.url());
    let primary = address_of(&old)?;
    let link = millrace_testkit::Proxy::start(primary).map_err(|error| error.to_string())?;
    let through = link.address().port().to_string();
    redis_do(&new, &["REPLICAOF", "127.0.0.1", &through])?;
    cluster.send(1_000);
    let linked = cluster.wait_for(seconds(20), |_| info(&new, "master_link_status:up"));
    part.must(linked.is_some(), "the replica follows the primary");
    cluster.pass(seconds(2));
    link.set(Link::Cut);
    cluster.pass(seconds(5));
    redis_do(&new, &["REPLICAOF", "NO", "ONE"])?;
    let server = address_of(&new)?;
    for name in LINKS {
        cluster.system.set_link(name, Link::Reset);
        cluster.system.redirect(name, server);
    }
    cluster.pass(seconds(1));
    cluster.watcher.new_incarnation();
    for name in LINKS {
        cluster.system.set_link(name, Link::Whole);
    }
    let before = commands(&old);
    cluster.pass(seconds(6));
    let after = commands(&old);
    part.must(
        after.saturating_sub(before) <= 3,
        format!("the old primary received {} writes", after.saturating_sub(before)),
    );
    if let Some(old) = cluster.system.redis.replace(replica) {
        drop(old);
    }
    Ok(())
}

fn info(url: &str, word: &str) -> bool {
    matches!(redis_do(url, &["INFO"]), Ok(value) if format!("{value:?}").contains(word))
}

/// The number of writing commands that a server has run.
fn commands(url: &str) -> u64 {
    let Ok(value) = redis_do(url, &["INFO", "commandstats"]) else { return 0 };
    let text = format!("{value:?}");
    let calls = |name: &str| {
        let (_, rest) = text.split_once(&format!("cmdstat_{name}:calls="))?;
        rest.split(',').next()?.parse::<u64>().ok()
    };
    ["set", "hset"].iter().filter_map(|name| calls(name)).sum()
}

fn refusals(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(1_000);
    for fault in [Fault::RedisFull, Fault::RedisReadOnly, Fault::RedisForbids, Fault::RedisFreeze] {
        fault.inject(&mut cluster.system)?;
        cluster.pass(seconds(if fault == Fault::RedisFreeze { 15 } else { 4 }));
        fault.repair(&mut cluster.system)?;
        writes_resume(cluster, part, &fault.kind());
    }
    let url = url(cluster)?;
    redis_do(&url, &["SCRIPT", "FLUSH"])?;
    writes_resume(cluster, part, "NOSCRIPT");
    redis_do(&url, &["CLIENT", "PAUSE", "4000", "ALL"])?;
    cluster.pass(seconds(4));
    writes_resume(cluster, part, "paused");
    // Another application's key in place of a position: not overwritten; once it is deleted, the partition is rebuilt.
    let key = format!("{}:a:{{3}}:pos", cluster.system.prefix().trim_end_matches('.'));
    redis_do(&url, &["SET", &key, "not a hash"])?;
    cluster.pass(seconds(4));
    let type_of_key = format!("{:?}", redis_do(&url, &["TYPE", &key])?);
    part.must(type_of_key.contains("string"), format!("WRONGTYPE: the foreign key is unchanged ({type_of_key})"));
    redis_do(&url, &["DEL", &key])?;
    writes_resume(cluster, part, "WRONGTYPE");
    Ok(())
}

fn killed_in_turn(cluster: &mut Cluster, part: &mut Part) -> Result<(), String> {
    cluster.send(500);
    // Each hour that is read has counts.
    let hours = [cluster.run.shape.base_hour, cluster.run.shape.base_hour - 1, cluster.run.shape.base_hour - 5];
    let shown =
        cluster.wait_for(seconds(30), |cluster| hours.iter().all(|&hour| read(cluster, hour) == ReadResult::Counts));
    part.must(shown.is_some(), "every live hour is readable");
    for (store, kill) in [("Redis", Fault::RedisKill), ("PostgreSQL", Fault::PostgresKill)] {
        kill.inject(&mut cluster.system)?;
        let reads = reads(cluster, &hours);
        part.must(
            reads.keys().eq([&ReadResult::Counts]),
            format!("{store} down: every response has counts: {reads:?}"),
        );
        kill.repair(&mut cluster.system)?;
        // Its circuit has closed, and what it missed is written: kill the next one.
        let from_redis =
            |cluster: &Cluster| hours[1..].iter().all(|&hour| tier(cluster, hour).as_deref() == Some("redis"));
        let back = cluster.wait_for(seconds(30), |cluster| from_redis(cluster));
        part.must(back.is_some(), format!("{store} is up: Redis serves past live hours"));
    }
    for kill in [Fault::RedisKill, Fault::PostgresKill] {
        kill.inject(&mut cluster.system)?;
    }
    let both = reads(cluster, &hours);
    let others = both.keys().filter(|read| !matches!(read, ReadResult::Counts | ReadResult::Later)).count();
    part.must(others == 0, format!("both down: counts or 503 with Retry-After: {both:?}"));
    part.sometimes("503 with Retry-After while both are down", both.get(&ReadResult::Later).copied().unwrap_or(0));
    for kill in [Fault::RedisKill, Fault::PostgresKill] {
        kill.repair(&mut cluster.system)?;
    }
    let back =
        cluster.wait_for(seconds(30), |cluster| hours.iter().all(|&hour| read(cluster, hour) == ReadResult::Counts));
    part.must(back.is_some(), "counts once both are up");
    Ok(())
}

/// The result of a read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum ReadResult {
    /// 200 with counts that are not zero.
    Counts,
    /// 503 with Retry-After.
    Later,
    /// Anything else.
    Other(String),
}

fn read(cluster: &Cluster, hour: u64) -> ReadResult {
    let Some(&address) = cluster.system.queries().first() else {
        return ReadResult::Other("no query service".to_owned());
    };
    match millrace_testkit::http_get(address, &crate::watcher::target(hour)) {
        Ok(answer) if answer.status == 200 => match crate::watcher::counts(&answer) {
            Some(counts) if counts.users > 0 => ReadResult::Counts,
            _ => ReadResult::Other(answer.into_text()),
        },
        Ok(answer) if answer.status == 503 && answer.header("retry-after").is_some() => ReadResult::Later,
        Ok(answer) => ReadResult::Other(answer.status.to_string()),
        Err(error) => ReadResult::Other(error.to_string()),
    }
}

/// The read model that serves an hour.
fn tier(cluster: &Cluster, hour: u64) -> Option<String> {
    let &address = cluster.system.queries().first()?;
    let answer = millrace_testkit::http_get(address, &crate::watcher::target(hour)).ok()?;
    answer.header("millrace-tier").map(str::to_owned)
}

/// Reads these hours for 4 s. Returns how often each result came.
fn reads(cluster: &mut Cluster, hours: &[u64]) -> BTreeMap<ReadResult, u64> {
    let mut reads = BTreeMap::new();
    cluster.wait_for(seconds(4), |cluster| {
        for &hour in hours {
            *reads.entry(read(cluster, hour)).or_default() += 1;
        }
        false
    });
    reads
}

/// Requires that Redis receives writes again.
fn writes_resume(cluster: &mut Cluster, part: &mut Part, what: &str) {
    let Ok(url) = url(cluster) else { return };
    let before = commands(&url);
    let took = cluster.wait_for(seconds(40), |_| commands(&url) > before + 20);
    let text = took.map_or_else(|| "never".to_owned(), |took| format!("after {:.1} s", took.as_secs_f64()));
    part.must(took.is_some(), format!("{what}: Redis receives writes again {text}"));
}
