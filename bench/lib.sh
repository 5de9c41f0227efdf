# shellcheck shell=bash
# Functions that the parts of bench/run share: processes, numbers, load, and the report. Sourced by bench/run, which sets
# ROOT, DATA, MILLRACE and BENCH and sources deploy/lib.sh. Runs on bash 3.2.

STARTED=

# --- processes -------------------------------------------------------------------------------------------------------

# start NAME COMMAND...
start() {
  local name=$1
  shift
  STARTED="$STARTED $name"
  detach "$DATA/run/$name.pid" "$DATA/log/$name.log" "$@"
}

end() { stop "$DATA/run/$1.pid" "$1" 20 TERM; }

# crash NAME: kill -9.
crash() { stop "$DATA/run/$1.pid" "$1" 10 KILL; }

# up NAME PORT [SECONDS]: waits until /readyz returns 200; polls more often than wait_for, because this time may be measured.
up() {
  local deadline=$(( $(date +%s) + ${3:-60} ))
  until http_ok "http://127.0.0.1:$2/readyz"; do
    if gone "$DATA/run/$1.pid" || [ "$(date +%s)" -ge "$deadline" ]; then
      tail -n 15 "$DATA/log/$1.log" >&2
      fail "$1 did not become ready"
    fi
    sleep 0.02
  done
}

# millrace NAME SUBCOMMAND SETTING...
millrace() {
  local name=$1 subcommand=$2 setting
  shift 2
  # One port for all, and most parts have no use of it; a part that has sets it again.
  set -- command.tcp.enabled=false "$@"
  for setting in "$@"; do set -- "$@" --set "$setting"; shift; done
  start "$name" "$MILLRACE" "$subcommand" "$@"
}

# start_up NAME ENGINE SETTING...: starts `millrace up` with topics, keys and tables or a directory of its own. Sets COMMAND,
# QUERY and ADMIN to its ports.
start_up() {
  COMMAND=$(free_port) QUERY=$(free_port) ADMIN=$(free_port)
  launch_up "$@"
  up "$1" "$ADMIN"
}

# launch_up NAME ENGINE SETTING...: the same at the ports COMMAND, QUERY and ADMIN, without waiting until it is ready.
launch_up() {
  local name=$1 engine=$2
  shift 2
  if [ "$engine" = kafka ]; then
    need_kafka
    need_stores
    set -- "$@" "kafka.brokers=$BROKERS" "redis.url=$REDIS_URL" "postgres.url=$POSTGRES_URL" "postgres.schema=bench_$name"
  else
    set -- "$@" "embedded.directory=$DATA/$name"
  fi
  millrace "$name" up "engine=$engine" "prefix=bench.$name." telemetry.level=warn "$@" \
    "command.listen=127.0.0.1:$COMMAND" "query.listen=127.0.0.1:$QUERY" "command.admin=127.0.0.1:$ADMIN"
}

# start_command NAME SETTING...: starts `millrace command` on Kafka with topics of its own. Sets COMMAND and ADMIN to its ports.
start_command() {
  local name=$1
  shift
  need_kafka
  COMMAND=$(free_port) ADMIN=$(free_port)
  millrace "$name" command engine=kafka "kafka.brokers=$BROKERS" "prefix=bench.$name." telemetry.level=warn "$@" \
    "command.listen=127.0.0.1:$COMMAND" "command.admin=127.0.0.1:$ADMIN"
  up "$name" "$ADMIN"
}

# start_bare ARGUMENT...: starts the bare server. Sets BARE to its port.
start_bare() {
  BARE=$(free_port)
  start bare "$BENCH" bare "127.0.0.1:$BARE" "$@"
  wait_for 10 port_answers "$BARE" || fail "the bare server did not start"
}

# Kafka, Redis and PostgreSQL are started when the first part needs them.
BROKERS='' REDIS_URL='' POSTGRES_URL=''
need_kafka() {
  local port
  [ -z "$BROKERS" ] || return 0
  install_missing java maven || fail "Apache Kafka is unavailable"
  port=$(free_port)
  start_kafka "$DATA" "$port" "$(free_port)" || fail "Apache Kafka did not start"
  BROKERS=127.0.0.1:$port
}
need_stores() {
  local port
  [ -z "$REDIS_URL" ] || return 0
  install_missing redis postgres || fail "Redis and PostgreSQL are unavailable"
  port=$(free_port)
  start_redis "$DATA" "$port" || fail "Redis did not start"
  REDIS_URL=redis://127.0.0.1:$port/
  port=$(free_port)
  start_postgres "$DATA" "$port" || fail "PostgreSQL did not start"
  POSTGRES_URL=postgres://millrace@127.0.0.1:$port/millrace
}

finish() {
  # In one command: `local` alone would leave its own success behind.
  local code=$? name
  trap - EXIT INT TERM
  for name in $STARTED; do stop "$DATA/run/$name.pid" "$name" 20 TERM; done
  stop_servers "$DATA"
  remove_servers "$DATA"
  if [ "$code" = 0 ]; then rm -rf "$DATA"; else warn "logs of this run: $DATA/log"; fi
  exit "$code"
}

have_proc() {
  [ -r /proc/self/stat ] && return 0
  warn "NOT MEASURED: $1 needs Linux's /proc"
  return 1
}

# cpu_ms NAME: prints its user and system time so far; 0 without /proc.
cpu_ms() {
  local pid
  [ -r /proc/self/stat ] || { echo 0; return; }
  pid=$(running "$DATA/run/$1.pid") || fail "$1 has ended; see $DATA/log/$1.log"
  sed 's/^.*) //' "/proc/$pid/stat" | awk -v tick="$(getconf CLK_TCK)" '{ printf "%d\n", ($12 + $13) * 1000 / tick }'
}

rss_kb() { awk '/^VmRSS:/ { print $2 }' "/proc/$(running "$DATA/run/$1.pid")/status"; }

now_ms() { if [ -n "${EPOCHREALTIME:-}" ]; then echo $(( ${EPOCHREALTIME/[.,]/} / 1000 )); else echo $(( $(date +%s) * 1000 )); fi; }

# metric PORT NAME: prints the sum of its series.
metric() {
  http_get "http://127.0.0.1:$1/metrics" | awk -v name="$2" '{ split($1, part, "{") } part[1] == name { n += $NF } END { printf "%d\n", n }'
}

# counted PORT EVENTS: true once the processor behind this admin listener has counted this many events.
counted() { [ "$(metric "$1" millrace_processor_counted_total)" -ge "$2" ]; }

# numbers PORT [HOURS_BACK]: prints an hour's counts on one line; nothing unless the status is 200.
numbers() { http_get "http://127.0.0.1:$1/analytics?timestamp=$(( $(date +%s) - ${2:-0} * 3600 ))000" | tr '\n' ' '; }

# settled PORT: true if the counts of the current hour do not change for a second.
settled() {
  local before
  before=$(numbers "$1")
  sleep 1
  [ -n "$before" ] && [ "$before" = "$(numbers "$1")" ]
}

# --- cores -----------------------------------------------------------------------------------------------------------
# Load above the server's capacity needs cores of its own: on shared ones it measures the kernel's scheduler.

CORES=$(getconf _NPROCESSORS_ONLN)
can_pin() { [ "$CORES" -ge 2 ] && command -v taskset >/dev/null 2>&1; }
# pin NAME...: restricts these processes to the lower half of the cores; unpin: allows all.
pin() { pin_to "0-$(( CORES / 2 - 1 ))" "$@"; }
unpin() { pin_to "0-$(( CORES - 1 ))" "$@"; }
pin_to() {
  local name cores=$1
  shift
  can_pin || return 0
  for name in "$@"; do taskset -a -c -p "$cores" "$(running "$DATA/run/$name.pid")" >/dev/null; done
}
# apart COMMAND...: runs it on the upper half of the cores.
apart() { if can_pin; then taskset -c "$(( CORES / 2 ))-$(( CORES - 1 ))" "$@"; else "$@"; fi; }

# --- numbers ---------------------------------------------------------------------------------------------------------

median() { sort -n | awk '{ v[NR] = $1 } END { if (NR) print (NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2) }'; }
column() { awk -v n="$1" '{ print $n }'; }
of() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f\n", (b ? a / b : 0) }'; }
seconds() { awk -v ms="$1" 'BEGIN { printf "%.2f\n", ms / 1000 }'; }

# judge VALUE COMPARISON AIM: "aim >= 0.4: reached".
judge() {
  awk -v v="$1" -v c="$2" -v a="$3" 'BEGIN { ok = (c == ">=" ? v >= a : c == "<=" ? v <= a : v < a);
    printf "aim %s %s: %s\n", c, a, (ok ? "reached" : "NOT REACHED") }'
}

# --- load ------------------------------------------------------------------------------------------------------------

# wrk_load SCRIPT CONNECTIONS PORT [SCHEME [OPTION...]]: closed loop, with these options of wrk; prints a line BENCH.
wrk_load() {
  wrk -t2 -c"$2" -d"${SECONDS_NOW}s" --timeout 10s -s "bench/$1.lua" "${@:5}" "${4:-http}://127.0.0.1:$3"
}

# warm_broker PORT: warms the broker's JVM up, which starts interpreted, at a third of its rate. Fewer connections send more
# and smaller requests, which compile most of it. Once per run.
WARM=
warm_broker() {
  [ -z "$WARM" ] || return 0
  local SECONDS_NOW=5
  say "    warming up the broker: 10 s"
  wrk_load post 64 "$1" >/dev/null
  wrk_load post 256 "$1" >/dev/null
  WARM=1
}

# load_at LOAD PROCESS...: runs the function LOAD, which prints "BENCH rate answers failures p50 p99". Sets RATE; P50 and
# P99 in us; CPU, the us of CPU time per answer of the load and of each process; and COST, their sum. A failed request ends
# the run. A warm-up comes first.
load_at() {
  local load=$1 process before='' failed TIMEFORMAT='%U %S'
  shift
  SECONDS_NOW=1
  "$load" >"$DATA/load.out" 2>&1 || { cat "$DATA/load.out" >&2; fail "$load failed"; }
  SECONDS_NOW=$BENCH_SECONDS
  for process in "$@"; do before="$before $(cpu_ms "$process")"; done
  { time "$load" >"$DATA/load.out" 2>"$DATA/load.err"; } 2>"$DATA/load.time" || { cat "$DATA/load.err" >&2; fail "$load failed"; }
  read -r _ RATE ANSWERS failed P50 P99 <<<"$(grep '^BENCH ' "$DATA/load.out")"
  [ "$failed" = 0 ] || { cat "$DATA/load.out" >&2; fail "$failed requests of $load failed"; }
  CPU=$(awk -v n="$ANSWERS" '{ printf "%.2f\n", ($1 + $2) * 1e6 / n }' "$DATA/load.time")
  for process in $before; do
    CPU="$CPU $(of $(( ($(cpu_ms "$1") - process) * 1000 )) "$ANSWERS")"
    shift
  done
  COST=$(awk '{ for (i = 1; i <= NF; i++) n += $i; print n }' <<<"$CPU")
}

# measure NAME LOAD PROCESSES BARE_LOAD BARE_PROCESSES: measures bare, load, bare, BENCH_ROUNDS times. A round's ratio is that
# to the mean of the bare rates before and after it.
measure() {
  local name=$1 load=$2 processes=$3 bare=$4 bare_processes=$5 file=$DATA/$1 before round rate cost
  # shellcheck disable=SC2086 # names of processes
  load_at "$bare" $bare_processes
  before=$RATE
  for round in $(seq "$BENCH_ROUNDS"); do
    # shellcheck disable=SC2086
    load_at "$load" $processes
    rate=$RATE cost=$COST
    echo "$RATE" >>"$file.rate"; echo "$P50 $P99" >>"$file.took"; echo "$CPU" >>"$file.cpu"
    # shellcheck disable=SC2086
    load_at "$bare" $bare_processes
    echo "$before" >>"$file.bare"; echo "$RATE" >>"$file.bare"; echo "$P50 $P99" >>"$file.bare-took"; echo "$CPU" >>"$file.bare-cpu"
    awk -v r="$rate" -v a="$before" -v b="$RATE" 'BEGIN { print r * 2 / (a + b) }' >>"$file.ratio"
    awk -v it="$cost" -v bare="$COST" 'BEGIN { print (it ? bare / it : 0) }' >>"$file.cpu-ratio"
    before=$RATE
    say "    round $round of $name: $rate/s; bare $before/s"
  done
}

# --- report ----------------------------------------------------------------------------------------------------------

row() { printf '  %-64s %16s  %s\n' "$1" "$2" "${3:-}"; }
line() { printf '  %-46s %9s %6s %14s %6s %16s  %s\n' "$@"; }
heading() { line "" "answers/s" ratio "CPU us/answer" "by CPU" "p50 / p99 ms" ""; }

# cpu_of FILE: prints the medians of the processes' columns, joined by plus signs; the first column is the load's.
cpu_of() {
  local i sum='' fields
  fields=$(awk 'NR == 1 { print NF }' "$1")
  for i in $(seq 2 "$fields"); do sum="${sum:+$sum + }$(column "$i" <"$1" | median | awk '{ printf "%.1f\n", $1 }')"; done
  echo "${sum:--}"
}
took_of() { echo "$(of "$(column 1 <"$1" | median)" 1000) / $(of "$(column 2 <"$1" | median)" 1000)"; }

# compare NAME BARE_TITLE TITLE [AIM]
compare() {
  local file=$DATA/$1 ratio
  ratio=$(median <"$file.ratio")
  line "$2" "$(median <"$file.bare" | cut -d. -f1)" 1.00 "$(cpu_of "$file.bare-cpu")" 1.00 "$(took_of "$file.bare-took")" ""
  line "$3" "$(median <"$file.rate" | cut -d. -f1)" "$(of "$ratio" 1)" "$(cpu_of "$file.cpu")" "$(of "$(median <"$file.cpu-ratio")" 1)" \
    "$(took_of "$file.took")" "${4:+$(judge "$ratio" '>=' "$4")}"
}
