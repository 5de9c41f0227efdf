# shellcheck shell=bash
# The time from POST to visible GET, under BENCH_RATE events per second.

visible_for() {
  "$BENCH" visible "127.0.0.1:$COMMAND" "127.0.0.1:$QUERY" --rate "$BENCH_RATE" --seconds "$1" ||
    fail "visibility could not be measured"
}

measure_visible() {
  local engine seconds
  # A second has some dozens of single events; a 99th percentile needs a few hundred.
  seconds=$(( BENCH_SECONDS * 5 ))
  for engine in kafka embedded; do
    start_up "visible$engine" "$engine"
    if [ "$engine" = kafka ]; then
      # Warms the broker's JVM up with transactions of this load.
      say "    warming up broker and services: 40 s"
      visible_for 40 >/dev/null
    fi
    visible_for "$seconds" >"$DATA/visible-$engine"
    end "visible$engine"
    say "    $engine: $(tr '\n' ' ' <"$DATA/visible-$engine")"
  done
}

report_visible() {
  local engine title word hour n p50 p99 judged
  say "From POST to visible GET, ms, with $BENCH_RATE events per second of the current hour; one process, load on the same cores"
  for engine in kafka embedded; do
    title="Apache Kafka"; [ "$engine" = kafka ] || title=embedded
    while read -r word hour n p50 p99; do
      case $word in
        ACHIEVED)
          judged=$(judge "$hour" '>=' "$(( BENCH_RATE * 99 / 100 ))")
          row "$title: acknowledged events per second" "$hour" "$judged; $n not acknowledged" ;;
        VISIBLE)
          row "$title, $hour hour, $n events: median" "$p50" "$(judge "$p50" '<' "$( [ "$engine" = kafka ] && echo 40 || echo 20)")"
          row "$title, $hour hour: 99th percentile" "$p99" "$(judge "$p99" '<' "$( [ "$engine" = kafka ] && echo 100 || echo 50)")" ;;
      esac
    done <"$DATA/visible-$engine"
  done
}
