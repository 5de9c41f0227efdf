# shellcheck shell=bash
# NATS JetStream beside the part topics: messages of 1 KiB, a file store, synced with every message and by its default.
# BENCH_NATS=1 requires it, BENCH_NATS=0 leaves it out; else it is measured if Go is there, which builds it from its modules.

NATS_SERVER=github.com/nats-io/nats-server/v2@v2.15.2
NATS_CLI=github.com/nats-io/natscli/nats@v0.5.0
NATS_BIN=$ROOT/target/nats

have_nats() {
  [ "${BENCH_NATS:-}" != 0 ] || return 1
  [ ! -x "$NATS_BIN/nats-server" ] || [ ! -x "$NATS_BIN/nats" ] || return 0
  command -v go >/dev/null 2>&1 || return 1
  say "    building NATS in $NATS_BIN"
  # A toolchain that is too old is an error; it does not fetch another one.
  GOBIN=$NATS_BIN GOTOOLCHAIN=local go install "$NATS_SERVER" >"$DATA/log/nats-build.log" 2>&1 &&
    GOBIN=$NATS_BIN GOTOOLCHAIN=local go install "$NATS_CLI" >>"$DATA/log/nats-build.log" 2>&1
}

# nats_tool ARGUMENT...: its client, with an end: a consumer without messages would wait forever. Sets NATS_OUT to its output.
nats_tool() {
  NATS_OUT=$DATA/log/nats-client.log
  rm -f "$NATS_OUT"
  start nats-client env "HOME=$DATA" "$NATS_BIN/nats" --no-context -s "nats://127.0.0.1:$NATS_PORT" "$@"
  wait_for $(( BENCH_SECONDS * 5 + 30 )) gone "$DATA/run/nats-client.pid" || { end nats-client; fail "nats $* does not end"; }
}

# nats_bench OPERATION... : a run of its benchmark. Sets NATS_RATE to messages a second.
nats_bench() {
  nats_tool bench js "$@" --size 1024 --no-progress
  NATS_RATE=$(sed -n 's/^.* stats: \([0-9,]*\) msgs\/sec.*/\1/p' "$NATS_OUT" | tr -d , | tail -n 1)
  [ -n "$NATS_RATE" ] || { tail -n 5 "$NATS_OUT" >&2; fail "nats bench js $1 failed"; }
}

measure_nats() {
  local sync messages publish stream fetch
  if ! have_nats; then
    [ "${BENCH_NATS:-}" != 1 ] || fail "NATS could not be built; see $DATA/log/nats-build.log"
    warn "NOT MEASURED: NATS needs Go, or was left out (BENCH_NATS=0)"
    return 0
  fi
  for sync in always 2m; do
    NATS_PORT=$(free_port)
    printf 'listen: 127.0.0.1:%s\njetstream { store_dir: "%s", sync_interval: %s }\n' "$NATS_PORT" "$DATA/nats-$sync" "$sync" \
      >"$DATA/nats-$sync.conf"
    start "nats-$sync" "$NATS_BIN/nats-server" -c "$DATA/nats-$sync.conf"
    wait_for 10 port_answers "$NATS_PORT" || fail "NATS did not start; see $DATA/log/nats-$sync.log"
    # The number of messages decides how long it takes: a first run finds out how many are right.
    nats_bench pub sync bench --clients 64 --msgs 6400 --create --maxbytes 8GB
    messages=$(( (NATS_RATE * BENCH_SECONDS / 64 + 1) * 64 ))
    nats_bench pub sync bench --clients 64 --msgs "$messages"
    publish=$NATS_RATE
    nats_bench consume --clients 1 --msgs "$messages"
    stream=$NATS_RATE
    # Another run of a consumer would wait for new messages.
    nats_tool consumer rm benchstream nats-bench -f
    nats_bench fetch --clients 64 --msgs "$messages" --batch 1 --doubleack
    fetch=$NATS_RATE
    echo "$sync $messages $publish $stream $fetch" >>"$DATA/nats.rows"
    say "    synced $sync: $publish/s published"
    end "nats-$sync"
    rm -rf "$DATA/nats-$sync"
  done
}

report_nats() {
  [ -r "$DATA/nats.rows" ] || return 0
  local sync title messages publish stream fetch rate
  say "NATS JetStream, 1 KiB, file store, its own clients on the same cores"
  while read -r sync messages publish stream fetch; do
    title="synced with every message"; [ "$sync" = always ] || title="synced every 2 minutes"
    row "$title: publishes a second, 64 clients, one at a time" "$publish" "$messages messages"
    row "$title: fetch one, ack it, wait for the answer, 64 clients" "$fetch"
    row "$title: streamed to one consumer, explicit acks" "$stream"
    if [ "$sync" = always ] && [ -r "$DATA/topics-publish-embedded.rate" ]; then
      rate=$(of "$(median <"$DATA/topics-publish-embedded.rate")" "$publish")
      row "Millrace embedded, publishes of 1 KiB, of those" "$rate" "$(judge "$rate" '>=' 10)"
    fi
  done <"$DATA/nats.rows"
}
