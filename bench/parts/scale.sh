# shellcheck shell=bash
# Processors that join and leave under load: the longest pause in the counts of a partition, and whether all are correct.

SCALE_RATE=5000
# The first one has a name, so that it keeps its partitions while it is down; the others have none.
SCALE_STEPS="none 1to4 4to2 restart restart-named 2to1"

# scale_start NUMBER...: starts processors and waits until they are ready.
scale_start() {
  local number name
  for number in "$@"; do
    name=; [ "$number" != 1 ] || name=instance=bench-1
    SCALE_ADMIN[number]=$(free_port)
    millrace "scale-$number" processor "${SCALE_SETTINGS[@]}" "processor.admin=127.0.0.1:${SCALE_ADMIN[number]}" ${name:+"$name"}
  done
  for number in "$@"; do up "scale-$number" "${SCALE_ADMIN[number]}"; done
}

scale_step() {
  case $1 in
    none) ;;
    1to4) scale_start 2 3 4 ;;
    4to2) end scale-3; end scale-4 ;;
    restart) end scale-2; scale_start 2 ;;
    restart-named) end scale-1; scale_start 1 ;;
    2to1) end scale-2 ;;
  esac
}

scale_reading() { grep -q '^READING' "$DATA/log/scale-pauses.log" 2>/dev/null || gone "$DATA/run/scale-pauses.pid"; }

# scale_round SECONDS
scale_round() {
  local step began log=$DATA/log/scale-pauses.log
  for step in $SCALE_STEPS; do
    rm -f "$log"
    start scale-pauses "$BENCH" pauses --brokers "$BROKERS" --prefix bench.scale. --seconds "$1"
    wait_for 60 scale_reading || fail "the pauses cannot be measured"
    began=$(now_ms)
    scale_step "$step"
    [ $(( $(now_ms) - began )) -lt $(( $1 * 1000 )) ] || fail "$step took longer than the measurement; increase BENCH_SECONDS"
    wait_for $(( $1 + 30 )) gone "$DATA/run/scale-pauses.pid" || fail "the measurement of pauses did not end"
    grep '^PAUSE ' "$log" >"$DATA/scale.out" || { cat "$log" >&2; fail "the pauses of $step were not measured"; }
    gone "$DATA/run/scale-load.pid" && fail "the load ended before the measurement did"
    say "    $step: $(cat "$DATA/scale.out")"
    column 2 <"$DATA/scale.out" >>"$DATA/scale-$step.median"
    column 3 <"$DATA/scale.out" >>"$DATA/scale-$step.longest"
  done
}

measure_scale() {
  local role admin listen round seconds=$(( BENCH_SECONDS * 2 + 4 ))
  need_kafka
  need_stores
  SCALE_SETTINGS=(engine=kafka prefix=bench.scale. "kafka.brokers=$BROKERS" "redis.url=$REDIS_URL"
    "postgres.url=$POSTGRES_URL" postgres.schema=bench_scale telemetry.level=warn)
  SCALE_ADMIN=()
  COMMAND=$(free_port) QUERY=$(free_port)
  for role in command materializer query; do
    admin=$(free_port) listen=
    case $role in command) listen=$COMMAND ;; query) listen=$QUERY ;; esac
    millrace "scale-$role" "$role" "${SCALE_SETTINGS[@]}" "$role.admin=127.0.0.1:$admin" ${listen:+"$role.listen=127.0.0.1:$listen"}
    up "scale-$role" "$admin"
  done
  scale_start 1
  warm_broker "$COMMAND"
  # The load must not count the warm-up's events.
  wait_for 60 settled "$QUERY" || fail "the counts did not settle"
  start scale-load "$MILLRACE" load --rate $SCALE_RATE --users 100000 --command "http://127.0.0.1:$COMMAND" \
    --query "http://127.0.0.1:$QUERY" --events $(( SCALE_RATE * (seconds + 4) * 6 * BENCH_ROUNDS ))
  for round in $(seq "$BENCH_ROUNDS"); do
    say "    round $round, longest pause of a partition in ms: median and worst of 12"
    scale_round "$seconds"
  done
  wait_for 300 gone "$DATA/run/scale-load.pid" || fail "the load did not end"
  SCALE_RIGHT=$(tail -n 1 "$DATA/log/scale-load.log")
  for role in command materializer query 1; do end "scale-$role"; done
}

report_scale() {
  local step title worst
  say "Processors that join and leave, $SCALE_RATE events per second, 12 partitions: longest pause in the counts of one, ms"
  for step in $SCALE_STEPS; do
    case $step in
      none) title="nothing happens" ;;
      1to4) title="1 becomes 4" ;;
      4to2) title="4 become 2: SIGTERM" ;;
      restart) title="1 of 2 is restarted, without a name" ;;
      restart-named) title="1 of 2 is restarted under its name" ;;
      2to1) title="2 become 1: SIGTERM" ;;
    esac
    worst=$(sort -n "$DATA/scale-$step.longest" | tail -n 1)
    row "$title: median of partitions" "$(median <"$DATA/scale-$step.median")"
    row "$title: the worst of all rounds" "$worst" "$(judge "$worst" '<' 3000)"
  done
  row "counts compared with the events sent" "$SCALE_RIGHT"
}
