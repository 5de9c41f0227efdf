# shellcheck shell=bash
# GETs: of the current hour against a bare server, of past hours against what the store itself takes for them, and all
# together at BENCH_RATE a second.

READS_HOURS=20000
LIVE_HOURS=24

get_hot() { wrk_load get 256 "$QUERY"; }
get_bare() { wrk_load get 256 "$BARE"; }
past() { echo "--connections $CONNECTIONS --seconds $SECONDS_NOW --from $1 --to $2"; }
# shellcheck disable=SC2046 # arguments
{
get_redis() { "$BENCH" get "127.0.0.1:$QUERY" --tier redis $(past 1 $(( LIVE_HOURS - 1 ))); }
raw_redis() { "$BENCH" redis-get "$REDIS_URL" --prefix bench.readskafka. $(past 1 $(( LIVE_HOURS - 1 ))); }
get_archive() { "$BENCH" get "127.0.0.1:$ARCHIVE_QUERY" --tier archive $(past $(( LIVE_HOURS + 2 )) $(( READS_HOURS - 1 ))); }
raw_archive() { "$BENCH" sql-get "$POSTGRES_URL" --schema bench_readskafka $(past $(( LIVE_HOURS + 2 )) $(( READS_HOURS - 1 ))); }
}

# reads_mixed ENGINE LIVE_HOURS
reads_mixed() {
  "$BENCH" reads "127.0.0.1:$QUERY" --rate "$BENCH_RATE" --seconds $(( BENCH_SECONDS * 2 )) \
    --live-hours "$2" --hours $(( READS_HOURS - 1 )) >"$DATA/reads-$1" || fail "reads of $1 could not be measured"
  say "    mixed reads of $1: $(tr '\n' ' ' <"$DATA/reads-$1")"
}

measure_reads() {
  local body admin
  "$BENCH" preload --directory "$DATA/readsembedded" --prefix bench.readsembedded. --events 400000 --hours $READS_HOURS
  start_up readsembedded embedded
  wait_for 120 settled "$QUERY" || fail "the counts did not settle"
  # The counts are stable: the bare server returns the same body.
  body=$(http_get "http://127.0.0.1:$QUERY/analytics?timestamp=$(date +%s)000"; echo x)
  start_bare --body "${body%x}"
  measure reads-hot get_hot readsembedded get_bare bare
  end bare
  reads_mixed embedded 0
  end readsembedded

  need_kafka
  "$BENCH" preload --brokers "$BROKERS" --prefix bench.readskafka. --events 400000 --hours $READS_HOURS
  start_up readskafka kafka
  wait_for 120 settled "$QUERY" || fail "the counts did not settle"
  # Memory and Redis serve older hours that were read before. This process has no Redis, and its cache expires so soon that
  # it has next to none of 20,000 hours at random.
  ARCHIVE_QUERY=$(free_port) admin=$(free_port)
  millrace readsarchive query engine=kafka "kafka.brokers=$BROKERS" prefix=bench.readskafka. telemetry.level=error \
    "redis.url=redis://127.0.0.1:$(free_port)/" "postgres.url=$POSTGRES_URL" postgres.schema=bench_readskafka \
    query.archive_cache_ttl=100ms "query.listen=127.0.0.1:$ARCHIVE_QUERY" "query.admin=127.0.0.1:$admin"
  up readsarchive "$admin"
  for CONNECTIONS in 1 64; do
    measure "reads-redis-$CONNECTIONS" get_redis "readskafka redis" raw_redis redis
    # The last load was the raw one: sample once more which tier serves the responses.
    SECONDS_NOW=1 get_redis | sed -n 's/^OF-TIER //p' >"$DATA/reads-redis.tier"
    measure "reads-archive-$CONNECTIONS" get_archive readsarchive raw_archive ""
    SECONDS_NOW=1 get_archive | sed -n 's/^OF-TIER //p' >"$DATA/reads-archive.tier"
  done
  end readsarchive
  reads_mixed kafka $LIVE_HOURS
  end readskafka
}

report_reads() {
  local engine title word tier n p50 p99
  say "GET of the current hour, the same body"
  heading
  compare reads-hot "bare axum, 256 connections" "millrace up, 256 connections" 0.85
  say
  say "GET of a past hour over HTTP, and the same read from its store; one process, stores on the same cores"
  heading
  compare reads-redis-1 "Redis, 36 commands in a pipeline, 1 at a time" "GET, 1 connection" 0.7
  compare reads-redis-64 "Redis, the same, 64 at a time" "GET, 64 connections"
  compare reads-archive-1 "PostgreSQL, one statement, 1 at a time" "GET, 1 connection" 0.7
  compare reads-archive-64 "PostgreSQL, the same, 64 at a time" "GET, 64 connections"
  row "of the GETs of live hours, answered from Redis" "$(cat "$DATA/reads-redis.tier")"
  row "of the GETs of older hours, answered from the archive" "$(cat "$DATA/reads-archive.tier")"
  say
  say "Reads at $BENCH_RATE per second, 95 % current and 5 % past hours; ms from when a read was due"
  for engine in kafka embedded; do
    title="Apache Kafka"; [ "$engine" = kafka ] || title=embedded
    while read -r word tier n p50 p99; do
      case $word in
        READS) row "$title: responses per second" "$tier" "$n failed" ;;
        TIER) [ "$n" = 0 ] || row "$title, $n reads from $tier: median / p99" "$p50 / $p99" ;;
      esac
    done <"$DATA/reads-$engine"
  done
}
