# shellcheck shell=bash
# The time from POST to visible GET, under BENCH_RATE events per second, and the CPU time of each process meanwhile.

# visible_for ENGINE SECONDS
visible_for() {
  local process pid processes
  processes=("millrace:visible$1")
  [ "$1" = embedded ] || processes+=(broker:kafka redis:redis postgres:postgres)
  set -- "$2"
  for process in "${processes[@]}"; do
    pid=$(running "$DATA/run/${process#*:}.pid") || fail "${process%:*} has ended"
    set -- "$@" --process "${process%:*}=$pid"
  done
  "$BENCH" visible "127.0.0.1:$COMMAND" "127.0.0.1:$QUERY" --rate "$BENCH_RATE" --seconds "$@" ||
    fail "visibility could not be measured"
}

measure_visible() {
  local engine round seconds
  # A second has some dozens of single events; a 99th percentile needs a few hundred.
  seconds=$(( BENCH_SECONDS * 5 ))
  for engine in kafka embedded; do
    # shellcheck disable=SC2086 # one word per setting
    start_up "visible$engine" "$engine" "kafka.partitions=$BENCH_PARTITIONS" $BENCH_SETTINGS
    if [ "$engine" = kafka ]; then
      # Warms the broker's JVM up with transactions of this load.
      say "    warming up broker and services: 40 s"
      visible_for "$engine" 40 >/dev/null
    fi
    for round in $(seq "$BENCH_ROUNDS"); do
      visible_for "$engine" "$seconds" >"$DATA/visible.out"
      say "    $engine, round $round: $(tr '\n' ' ' <"$DATA/visible.out")"
      cat "$DATA/visible.out" >>"$DATA/visible-$engine"
    done
    end "visible$engine"
  done
}

# visible_rounds ENGINE PATTERN FIELD: prints this field of the lines that begin with the pattern, one of each round.
visible_rounds() { awk -v pattern="^$2 " -v field="$3" '$0 ~ pattern { print $field }' "$DATA/visible-$1"; }

# visible_row TITLE ENGINE PATTERN FIELD [AIM]: every round; the highest must be below the aim.
visible_row() {
  local values worst
  values=$(visible_rounds "$2" "$3" "$4")
  [ -n "$values" ] || return 0
  worst=$(sort -n <<<"$values" | tail -n 1)
  row "$1" "$(tr '\n' ' ' <<<"$values")" "${5:+$(judge "$worst" '<' "$5")}"
}

report_visible() {
  local engine title hour lowest process median p99
  say "From POST to visible GET, ms, with $BENCH_RATE events per second of the current hour; one process, load on the same cores;" \
    "one number for each round"
  for engine in kafka embedded; do
    case $engine in
      kafka) title="Apache Kafka" median=50 p99=120; [ "$BENCH_RATE" -gt 5000 ] || median=40 p99=80 ;;
      embedded) title=embedded median=20 p99=50 ;;
    esac
    lowest=$(visible_rounds "$engine" ACHIEVED 2 | sort -n | head -n 1)
    row "$title: acknowledged events per second, lowest" "$lowest" \
      "$(judge "$lowest" '>=' "$(( BENCH_RATE * 99 / 100 ))"); $(visible_rounds "$engine" ACHIEVED 3 | tr '\n' ' ')not acknowledged"
    for hour in previous current; do
      visible_row "$title, $hour hour: median" "$engine" "VISIBLE $hour" 4 "$median"
      visible_row "$title, $hour hour: 99th percentile" "$engine" "VISIBLE $hour" 5 "$p99"
    done
    for process in broker millrace redis postgres load; do
      visible_row "$title: CPU of $process, percent of a core" "$engine" "CPU $process" 3
      visible_row "$title: CPU of $process, us an event" "$engine" "CPU $process" 4
    done
    visible_row "$title: CPU of all but the load, us an event" "$engine" "CPU pipeline" 4 "$([ "$engine" = embedded ] || echo 45)"
  done
}
