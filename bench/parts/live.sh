# shellcheck shell=bash
# Many readers of the live stream: the cost of each, under a load of events of the current hour.

LIVE_RATE=200

# live_cpu SECONDS: CPU of the server in that time, in ms.
live_cpu() {
  local before
  before=$(cpu_ms live)
  sleep "$1"
  echo $(( $(cpu_ms live) - before ))
}

live_opened() { grep -Eq '^(OPEN|ABSENT)' "$DATA/log/live-readers.log" || gone "$DATA/run/live-readers.pid"; }

measure_live() {
  have_proc "the live stream" || return 0
  local seconds=$(( BENCH_SECONDS * 2 )) log=$DATA/log/live-readers.log
  # A few more than readers: the first connection only checks that the stream exists.
  start_up live embedded "query.max_live_streams=$(( BENCH_READERS + 100 ))"
  # Longer than the whole measurement, which ends it.
  start live-load "$BENCH" offer "127.0.0.1:$COMMAND" --rate $LIVE_RATE --seconds $(( seconds * 2 + 300 )) --connections 10
  sleep 2
  LIVE_CPU_ALONE=$(live_cpu "$seconds")
  LIVE_KB_ALONE=$(rss_kb live)
  # They read longer than the measurement, so that closing them is not in it.
  start live-readers "$BENCH" live "127.0.0.1:$QUERY" --readers "$BENCH_READERS" --seconds $(( seconds + 4 ))
  wait_for 120 live_opened || fail "the readers were not connected in time"
  LIVE_ABSENT=$(sed -n 's/^ABSENT //p' "$log")
  if [ -z "$LIVE_ABSENT" ]; then
    LIVE_OPEN=$(sed -n 's/^OPEN //p' "$log")
    [ -n "$LIVE_OPEN" ] || { cat "$log" >&2; fail "the readers could not connect"; }
    sleep 1
    LIVE_CPU=$(live_cpu "$seconds")
    LIVE_KB=$(rss_kb live)
    wait_for 60 gone "$DATA/run/live-readers.pid" || fail "the readers did not end"
    read -r _ LIVE_EVENTS LIVE_LOST <<<"$(grep '^LIVE ' "$log" || true)"
    [ -n "${LIVE_LOST:-}" ] || { cat "$log" >&2; fail "the readers failed"; }
    LIVE_SECONDS=$seconds
  fi
  running "$DATA/run/live-load.pid" >/dev/null || fail "the live hour did not change; see $DATA/log/live-load.log"
  end live-load
  end live
}

report_live() {
  [ -n "${LIVE_CPU_ALONE:-}" ] || return 0
  say "The live stream on the embedded engine, $BENCH_READERS readers, $LIVE_RATE events a second"
  if [ -n "$LIVE_ABSENT" ]; then
    row "NOT MEASURED: GET /analytics/live was answered" "$LIVE_ABSENT"
    return 0
  fi
  local ms=$(( LIVE_CPU - LIVE_CPU_ALONE )) events
  events=$(of "$LIVE_EVENTS" "$LIVE_OPEN")
  row "readers open; dropped" "$LIVE_OPEN; $LIVE_LOST"
  row "events a second for each reader" "$events"
  row "KB of the server a reader" "$(of $(( LIVE_KB - LIVE_KB_ALONE )) "$LIVE_OPEN")"
  row "CPU of the server a reader and second, us" "$(of $(( ms * 1000 / LIVE_SECONDS )) "$LIVE_OPEN")"
  row "CPU of the server an event and reader, us" "$(of $(( ms * 1000 / LIVE_SECONDS )) "$LIVE_EVENTS")"
}
