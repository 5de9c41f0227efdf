# shellcheck shell=bash
# The rate at which `millrace processor` counts preloaded events in Kafka, exactly once.

measure_processor() {
  have_proc "the processor" || return 0
  local run began admin prefix cpu wall
  need_kafka
  for run in $(seq "$BENCH_ROUNDS"); do
    prefix=bench.processor$run. admin=$(free_port)
    "$BENCH" preload --brokers "$BROKERS" --prefix "$prefix" --events "$BENCH_EVENTS"
    sleep 1
    began=$(now_ms)
    millrace "processor$run" processor engine=kafka "kafka.brokers=$BROKERS" "prefix=$prefix" telemetry.level=warn \
      "processor.admin=127.0.0.1:$admin"
    wait_for 90 counted "$admin" "$BENCH_EVENTS" || fail "the processor did not count $BENCH_EVENTS events in time"
    wall=$(( $(now_ms) - began ))
    # Waits for the commit of the last transaction.
    sleep 0.5
    cpu=$(cpu_ms "processor$run")
    "$BENCH" totals --brokers "$BROKERS" --prefix "$prefix" --events "$BENCH_EVENTS"
    end "processor$run"
    awk -v n="$BENCH_EVENTS" -v ms="$cpu" 'BEGIN { printf "%.3f\n", n / ms / 1000 }' >>"$DATA/processor.cpu"
    awk -v n="$BENCH_EVENTS" -v ms="$wall" 'BEGIN { printf "%.3f\n", n / ms / 1000 }' >>"$DATA/processor.wall"
    say "    round $run: $cpu ms of CPU, $wall ms"
  done
}

report_processor() {
  [ -f "$DATA/processor.cpu" ] || return 0
  local cpu
  cpu=$(median <"$DATA/processor.cpu")
  say "Processor on Apache Kafka, exactly once, $BENCH_EVENTS events of 100000 users, counts checked"
  row "million events per CPU second" "$cpu" "$(judge "$cpu" '>=' 1.0)"
  row "million events per second, start included" "$(median <"$DATA/processor.wall")"
}
