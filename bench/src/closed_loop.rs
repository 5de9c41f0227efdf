//! A closed loop of reads on each of some connections: a GET of a past hour, and the same read from its store, through the
//! same client libraries and without HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use clap::Args;
use futures::future::try_join_all;
use millrace_contracts::Hour;
use redis::aio::ConnectionManager;

use crate::clock::{HOUR_MS, now_ms};
use crate::http::{Connection, Tier};
use crate::numbers::bench_line;
use crate::preload::Random;
use crate::{print, requests};

/// Concurrency, length and hours of a closed loop.
#[derive(Debug, Clone, Args)]
pub(crate) struct Trips {
    /// Number of concurrent reads
    #[arg(long, default_value_t = 1)]
    connections: u64,
    /// Length in seconds
    #[arg(long)]
    seconds: f64,
    /// The first hour, counted back from the current one
    #[arg(long)]
    from: u64,
    /// The last hour
    #[arg(long)]
    to: u64,
}

impl Trips {
    /// The starts of the hours that one connection reads, in an order of its own.
    fn hours(&self, connection: u64) -> impl Iterator<Item = u64> + use<> {
        let (now_ms, from, span) = (now_ms(), self.from, self.to - self.from + 1);
        let mut random = Random::new();
        let hours: Vec<_> = (0..4_096).map(|_| now_ms - (from + random.below(span)) * HOUR_MS).collect();
        let skip = usize::try_from(connection).unwrap_or_default() * 61 % hours.len();
        hours.into_iter().cycle().skip(skip)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs_f64(self.seconds)
    }

    fn print(&self, took: &[Vec<Duration>]) -> anyhow::Result<()> {
        let mut took = took.concat();
        print(&bench_line(&mut took, 0, Duration::from_secs_f64(self.seconds)))
    }
}

/// GETs, and the share of the responses that this tier served.
pub(crate) async fn get(to: SocketAddr, trips: Trips, tier: Tier) -> anyhow::Result<()> {
    let deadline = trips.deadline();
    let connection = async |number| {
        let (mut took, mut meant) = (Vec::new(), 0);
        let mut connection = Connection::open(to).await?;
        for timestamp_ms in trips.hours(number) {
            let began = Instant::now();
            if began >= deadline {
                break;
            }
            let answer = connection.exchange(&requests::get(to, timestamp_ms)).await?;
            ensure!(answer.status == 200, "a GET returned {}", answer.status);
            meant += u64::from(answer.tier == tier);
            took.push(began.elapsed());
        }
        anyhow::Ok((took, meant))
    };
    let (took, meant): (Vec<_>, Vec<_>) =
        try_join_all((0..trips.connections).map(connection)).await?.into_iter().unzip();
    let all: usize = took.iter().map(Vec::len).sum();
    print(&format!("OF-TIER {:.3}", meant.iter().sum::<u64>() as f64 / all.max(1) as f64))?;
    trips.print(&took)
}

/// The reads of a GET of a live hour from Redis, for every partition, on one multiplexed connection.
pub(crate) async fn redis(url: &str, prefix: &str, partitions: u32, trips: Trips) -> anyhow::Result<()> {
    let manager = ConnectionManager::new(redis::Client::open(url)?).await?;
    let stem = Arc::new(format!("{}:a:", prefix.trim_end_matches(['.', '-'])));
    let deadline = trips.deadline();
    let connection = async |number| {
        let (mut manager, stem) = (manager.clone(), stem.clone());
        let (mut took, mut found) = (Vec::new(), 0);
        for timestamp_ms in trips.hours(number) {
            let began = Instant::now();
            if began >= deadline {
                break;
            }
            let hour = Hour::of_ms(timestamp_ms.cast_signed());
            let mut pipe = redis::pipe();
            for partition in 0..partitions {
                let position = format!("{stem}{{{partition}}}:pos");
                let fields = ["position", "incarnation", "build", "complete", "hours"];
                pipe.cmd("HMGET").arg(&position).arg(&fields);
                pipe.cmd("GET").arg(format!("{stem}{{{partition}}}:hour:{hour}"));
                pipe.cmd("HMGET").arg(&position).arg(&fields);
            }
            let replies: Vec<redis::Value> = pipe.query_async(&mut manager).await?;
            found += replies.iter().skip(1).step_by(3).filter(|reply| **reply != redis::Value::Nil).count();
            took.push(began.elapsed());
        }
        // If Millrace's names had changed, this would measure reads of nothing.
        ensure!(found > 0, "no hour exists below {stem}");
        anyhow::Ok(took)
    };
    trips.print(&try_join_all((0..trips.connections).map(connection)).await?)
}

/// The read of a GET of an archived hour from PostgreSQL, with a pool of the query service's size.
pub(crate) async fn sql(url: &str, schema: &str, partitions: u32, trips: Trips) -> anyhow::Result<()> {
    const HOUR: &str = "
        SELECT coalesce(sum(clicks), 0)::bigint, coalesce(sum(impressions), 0)::bigint,
               coalesce(sum(unique_users), 0)::bigint, coalesce(bool_and(exact), true),
               (SELECT count(*) FROM projection WHERE partition < $2 AND position IS NOT NULL AND complete)
        FROM hourly WHERE hour = to_timestamp($1::bigint) AND partition < $2";
    let options: sqlx::postgres::PgConnectOptions = url.parse()?;
    let options = options.options([("search_path", schema)]);
    let pool = sqlx::postgres::PgPoolOptions::new().max_connections(8).connect_with(options).await?;
    let deadline = trips.deadline();
    let connection = async |number| {
        let (mut took, mut events) = (Vec::new(), 0);
        for timestamp_ms in trips.hours(number) {
            let began = Instant::now();
            if began >= deadline {
                break;
            }
            let second = (timestamp_ms - timestamp_ms % HOUR_MS).cast_signed() / 1_000;
            let read = sqlx::query_as(HOUR).bind(second).bind(partitions.cast_signed());
            let row: (i64, i64, i64, bool, i64) = read.fetch_one(&pool).await.context("the archive's statement")?;
            events += row.0 + row.1;
            took.push(began.elapsed());
        }
        ensure!(events > 0, "no hour exists in the schema {schema}");
        anyhow::Ok(took)
    };
    trips.print(&try_join_all((0..trips.connections).map(connection)).await?)
}
